"""Fields that every request for generated text shares."""

from typing import Annotated

from pydantic import AfterValidator, Field, StrictFloat, StrictInt

Number = StrictFloat | StrictInt
Temperature = Annotated[Number, Field(ge=0, le=2, allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1, allow_inf_nan=False)]
Penalty = Annotated[Number, Field(ge=-2, le=2, allow_inf_nan=False)]
Seed = Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - 1)]
TokenCount = Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
Choices = Annotated[StrictInt, Field(ge=1, le=128)]
EndUser = Annotated[str, Field(max_length=512)]

_StopText = Annotated[str, Field(min_length=1)]
Stop = _StopText | Annotated[list[_StopText], Field(max_length=4, fail_fast=True)]


def _token_ids(value: dict[str, Number]) -> dict[str, Number]:
    for key in value:
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise ValueError(f"keys are token ids, got {key[:40]!r}")
    return value


LogitBias = Annotated[
    dict[str, Annotated[Number, Field(ge=-100, le=100, allow_inf_nan=False)]],
    Field(max_length=1024),
    AfterValidator(_token_ids),
]

"""The sixteen pairs of text that a client may attach to an object."""

from typing import Annotated

from pydantic import Field

Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]

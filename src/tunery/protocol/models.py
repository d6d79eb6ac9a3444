"""Models on the wire."""

from typing import Literal

from tunery.protocol.base import Response


class ModelPrices(Response):
    """US dollars a million tokens."""

    training: float | None
    input: float
    output: float | None


class ModelDetails(Response):
    """What stands behind a model's name: an addition of ours to OpenAI's object."""

    kind: Literal["base", "tuned", "embedding"]
    base: str
    base_digest: str
    adapter_digest: str | None
    engine: str
    system_fingerprint: str | None
    context_tokens: int
    prices: ModelPrices
    dimensions: int | None
    job_id: str | None


class Model(Response):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    tunery: ModelDetails


class ModelDeleted(Response):
    """A model that is gone."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True

"""/embeddings."""

from typing import Any

from openai.types import EmbeddingCreateParams

from conformance.fields.chat import LEDGER
from conformance.fields.probe import Answer, Endpoint, Honoured, echoes


def vector(answer: Answer) -> Any:
    """Return the first vector, as it was answered."""
    return answer.value["data"][0]["embedding"]


def alike(one: list[float], other: list[float]) -> bool:
    """Whether two vectors are the same up to the last bits, which neighbours may change."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-5


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/embeddings",
        params=EmbeddingCreateParams,
        base={"model": "{embedding_model}", "input": "a"},
        fields={
            "model": Honoured(
                value="{other_embedding_model}",
                other="{embedding_model}",
                shows=echoes("model"),
                wrong=("", 5),
                values="an embedding model under its names",
            ),
            "input": Honoured(
                value=["a", "the sun"],
                other="a",
                shows=lambda sent, other: (
                    (len(sent.value["data"]), len(other.value["data"])) == (2, 1)
                    and alike(vector(sent), vector(other))
                    and not alike(sent.value["data"][1]["embedding"], vector(other))
                ),
                wrong=("", [], 5, [""], [[]], [-1]),
                values="a text, or up to 2048 texts; token ids under the model's own name",
            ),
            "dimensions": Honoured(
                value=4,
                shows=lambda sent, other: len(vector(sent)) == 4 < len(vector(other)),
                wrong=(0, 1_000_000, "4", 1.5),
                values="1 to the model's own",
            ),
            "encoding_format": Honoured(
                value="base64",
                other="float",
                shows=lambda sent, other: (
                    isinstance(vector(sent), str) and isinstance(vector(other), list)
                ),
                wrong=("hex", 5),
                values="`float`, `base64`",
            ),
            "user": Honoured(value="ann", proof=LEDGER, wrong=(5, "x" * 513), values="512"),
        },
    ),
)

"""Models: those of the catalogue, the tuned models made from its bases, and how they are named."""

import re
from dataclasses import dataclass
from decimal import Decimal

from tunery.domain.errors import InvalidRequest
from tunery.domain.ids import random_text
from tunery.domain.jobs import Adapter

MAX_SUFFIX = 64


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars a million tokens."""

    training: Decimal
    input: Decimal
    output: Decimal
    tuned_input: Decimal
    tuned_output: Decimal


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model of the catalogue: a folder in Hugging Face layout and what is known of it."""

    name: str
    aliases: tuple[str, ...]  # the names that clients may ask for
    path: str
    digest: str  # SHA-256 over weights, configuration, tokenizer and chat template
    context_tokens: int
    learning_rate: float  # what learning_rate_multiplier multiplies
    prices: Prices
    created_at: int

    @property
    def names(self) -> tuple[str, ...]:
        """Return every name this base answers to, its own first."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model of the catalogue that turns a text into a vector of length 1."""

    name: str
    aliases: tuple[str, ...]
    path: str
    digest: str  # SHA-256 over weights, configuration, pooling and tokenizer
    dimensions: int
    max_tokens: int  # of one text, those that the model puts around it included
    price: Decimal  # US dollars a million tokens
    created_at: int

    @property
    def names(self) -> tuple[str, ...]:
        """Return every name this model answers to, its own first."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A tuned model or checkpoint of one project: a base, pinned by digest, and an adapter."""

    name: str
    job_id: str
    base: str
    base_digest: str
    adapter: Adapter
    created_at: int


def fingerprint(base_digest: str, adapter_digest: str | None, engine: str) -> str:
    """Return which weights answer, and what computes them, as `system_fingerprint` says it.

    Two answers with the same fingerprint came from the same weights, ten digits of SHA-256 each, in
    the same arithmetic.
    """
    adapter = "base" if adapter_digest is None else adapter_digest[:10]
    return f"fp_{base_digest[:10]}_{adapter}_{engine}"


def check_suffix(suffix: str) -> str:
    """Return `suffix` if it can be part of a model's name, else raise InvalidRequest."""
    if not 1 <= len(suffix) <= MAX_SUFFIX or not re.fullmatch(r"[A-Za-z0-9._-]+", suffix):
        raise InvalidRequest(
            f"Invalid suffix {suffix[:80]!r}: it needs 1 to {MAX_SUFFIX} letters, digits, '.', '_'"
            " or '-'.",
            param="suffix",
            code="invalid_suffix",
        )
    return suffix


def tuned_name(requested: str, organization_slug: str, suffix: str | None) -> str:
    """Return a new name `ft:<base>:<organization>:<suffix or empty>:<8 characters>`.

    `requested` is the name that the job was created with. Where that is a tuned model, its base
    part is carried on: OpenAI names a model tuned from a tuned one after the same base.
    """
    base = requested.split(":")[1] if requested.startswith("ft:") else requested
    return f"ft:{base}:{organization_slug}:{suffix or ''}:{random_text(8)}"


def checkpoint_name(requested: str, organization_slug: str, suffix: str | None, step: int) -> str:
    """Return a new name for an earlier checkpoint, with its own 8 characters and its step."""
    return f"{tuned_name(requested, organization_slug, suffix)}:ckpt-step-{step}"

"""Texts that are to become vectors: their model is found, their tokens are counted and charged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunery.datasets.embedding import EmbeddingTokenizer
from tunery.domain.errors import InvalidRequest
from tunery.domain.models import EmbeddingModel
from tunery.domain.tenants import Caller, Tenant
from tunery.domain.usage import UsageKind, UsageRecord, embedding_cost
from tunery.services.ledger import LedgerLine
from tunery.services.models import ModelDirectory, not_for
from tunery.storage.database import Database

MAX_TOKENS = 300_000  # of one request, as OpenAI has it


@dataclass(frozen=True, slots=True)
class PreparedEmbedding:
    """What the embedder is to compute, and what it will be charged as."""

    model: EmbeddingModel
    name: str
    token_ids: list[list[int]]

    @property
    def tokens(self) -> int:
        """Return the tokens of all texts."""
        return sum(map(len, self.token_ids))


def prepare_embedding(
    database: Database,
    directory: ModelDirectory,
    tokenizers: Callable[[EmbeddingModel], EmbeddingTokenizer],
    tenant: Tenant,
    name: str,
    inputs: Sequence[str | Sequence[int]],
    dimensions: int | None,
) -> PreparedEmbedding:
    """Find the model and count the tokens; all that can be refused is refused here."""
    model = directory.catalogue.embedding(name)
    if model is None:
        with database.read() as tx:
            makes_text = directory.find(tx, tenant, name) is not None
        raise not_for(directory, name, "an embedding", "v1/embeddings", makes_text=makes_text)
    if dimensions is not None and dimensions > model.dimensions:
        raise InvalidRequest(
            f"Invalid value for 'dimensions': {dimensions}; {model.name}, which answers to"
            f" {name[:100]!r}, has {model.dimensions}.",
            param="dimensions",
            code="invalid_value",
        )
    if name != model.name and any(not isinstance(one, str) for one in inputs):
        raise InvalidRequest(
            f"Invalid value for 'input': token ids of {name[:100]!r} would mean other words to"
            f" {model.name}, which answers to that name. Send text (in LangChain:"
            f" check_embedding_ctx_length=False), or ids of {model.name}'s own under its own name.",
            param="input",
            code="invalid_value",
        )
    prepared = PreparedEmbedding(model, name, tokenizers(model).encode(inputs))
    if prepared.tokens > MAX_TOKENS:
        raise InvalidRequest(
            f"Got {prepared.tokens} tokens in all inputs; a request takes {MAX_TOKENS}. Send them"
            " in several requests.",
            param="input",
            code="max_tokens_per_request",
        )
    return prepared


def ledger_line(caller: Caller, prepared: PreparedEmbedding, end_user: str | None) -> LedgerLine:
    """Return what a request used."""
    record = UsageRecord(
        request_id=caller.request_id,
        kind=UsageKind.EMBEDDING,
        model=prepared.name,
        base=prepared.model.name,
        key_id=caller.key_id,
        end_user=end_user,
        input_tokens=prepared.tokens,
        output_tokens=0,
        cost_nanodollars=embedding_cost(prepared.model.price, prepared.tokens, batch=caller.batch),
        batch=caller.batch,
    )
    return LedgerLine(caller.tenant, record)

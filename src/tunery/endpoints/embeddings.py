"""/v1/embeddings: texts in, vectors out."""

from typing import Any

from anyio.to_thread import run_sync

from tunery.domain.tenants import Caller
from tunery.endpoints.parts import Parts
from tunery.protocol.embeddings import CreateEmbeddingRequest, CreateEmbeddingResponse
from tunery.services import embeddings
from tunery.wire.embeddings import from_wire_inputs, to_wire_embeddings
from tunery.wire.requests import from_wire_value


async def answer(parts: Parts, caller: Caller, value: Any) -> CreateEmbeddingResponse:
    """Return the vectors of a body's inputs. What fails was not served, and is not charged."""
    body = from_wire_value(value, CreateEmbeddingRequest)
    prepared = await run_sync(
        embeddings.prepare_embedding,
        parts.database,
        parts.directory,
        parts.embedding_tokenizers,
        caller.tenant,
        body.model,
        from_wire_inputs(body),
        body.dimensions,
    )
    vectors = await parts.embedder.embed(prepared.token_ids, prepared.model)
    await parts.ledger.write(embeddings.ledger_line(caller, prepared, body.user))
    return to_wire_embeddings(body, vectors, prepared.tokens)

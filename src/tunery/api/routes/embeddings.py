"""/v1/embeddings."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tunery.api import streaming
from tunery.api.body import documented, read_value
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.endpoints import embeddings
from tunery.protocol.embeddings import CreateEmbeddingRequest, CreateEmbeddingResponse

router = APIRouter(prefix="/v1/embeddings")


@router.post(
    "", response_model=CreateEmbeddingResponse, openapi_extra=documented(CreateEmbeddingRequest)
)
async def create(request: Request, caller: CallerDependency) -> Response:
    """Turn texts into vectors."""
    work = embeddings.answer(context_of(request).parts, caller, await read_value(request))
    try:
        made = await streaming.unless_gone(request, work)
    except streaming.ClientGone:
        return Response(status_code=499)  # nobody reads it
    return Response(made.model_dump_json(), media_type="application/json")

"""/v1/models. Names of tuned models hold colons, and some clients send slashes: both are taken."""

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.protocol.base import WholeList
from tunery.protocol.models import Model, ModelDeleted
from tunery.services import models
from tunery.wire.models import to_wire_embedding_model, to_wire_model

router = APIRouter(prefix="/v1/models")


@router.get("")
async def list_all(request: Request, caller: CallerDependency) -> WholeList[Model]:
    """List the base and embedding models under their names, and the tuned models in reach."""
    context = context_of(request)
    found = await run_in_threadpool(
        models.list_models, context.database, context.directory, caller.tenant
    )
    vectors = await run_in_threadpool(context.directory.catalogue.embeddings)
    engine = context.parts.engine
    default = context.directory.base().digest  # whose engine computes embeddings
    return WholeList(
        data=[
            *(to_wire_model(one, caller.tenant, engine.version(one.base.digest)) for one in found),
            *(
                to_wire_embedding_model(name, one, engine.version(default))
                for one in vectors
                for name in one.names
            ),
        ]
    )


@router.get("/{model:path}")
async def retrieve(request: Request, caller: CallerDependency, model: str) -> Model:
    """Return a model."""
    context = context_of(request)
    vectors = await run_in_threadpool(context.directory.catalogue.embedding, model)
    if vectors is not None:
        default = context.directory.base().digest
        return to_wire_embedding_model(model, vectors, context.parts.engine.version(default))
    found = await run_in_threadpool(
        models.get_model, context.database, context.directory, caller.tenant, model
    )
    engine = context.parts.engine.version(found.base.digest)
    return to_wire_model(found, caller.tenant, engine)


@router.delete("/{model:path}")
async def delete(request: Request, caller: CallerDependency, model: str) -> ModelDeleted:
    """Remove a tuned model."""
    context = context_of(request)
    await run_in_threadpool(
        models.delete_model,
        context.database,
        context.blobs,
        context.directory,
        caller.tenant,
        model,
    )
    context.parts.models.forget()
    return ModelDeleted(id=model)

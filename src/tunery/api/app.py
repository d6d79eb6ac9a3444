"""The application: routes, errors, headers."""

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

import tunery
from tunery.api import document, errors
from tunery.api.context import Context
from tunery.api.draining import Drain, Draining
from tunery.api.headers import ResponseHeaders
from tunery.api.query import refuse_unknown_query
from tunery.api.routes import (
    batches,
    chat,
    completions,
    embeddings,
    files,
    fine_tuning,
    health,
    models,
    moderations,
    permissions,
    responses,
    stored_completions,
    uploads,
    webhooks,
)

ROUTES = (
    chat,  # first: routes are looked through in their order
    files,
    uploads,
    fine_tuning,
    permissions,
    models,
    stored_completions,
    completions,
    responses,
    embeddings,
    moderations,
    batches,
    webhooks,
)


def create_app(context: Context, drain: Drain | None = None) -> ASGIApp:
    """Return the API over the given parts; `drain` is for whoever ends it in order."""
    app = FastAPI(
        title="tunery",
        version=tunery.__version__,
        description="Your own fine-tuning service behind OpenAI's API.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=document.operation_id,
    )
    app.state.context = context
    for module in ROUTES:
        app.include_router(
            module.router,
            responses=document.ERRORS,
            dependencies=[Depends(refuse_unknown_query)],
        )
    app.include_router(health.router)
    document.install(app)
    errors.install(app)
    return ResponseHeaders(Draining(app, drain or Drain()))

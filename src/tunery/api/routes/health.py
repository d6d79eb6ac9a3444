"""Whether the process lives, and whether it can do its work."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tunery.api.context import context_of
from tunery.domain.errors import TuneryError

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer that the process lives."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Not ready; `checks` says why."}})
async def readyz(request: Request) -> JSONResponse:
    """Answer whether database, base model and engine are there: 200, or 503 with what is not."""
    context = context_of(request)
    checks: dict[str, str] = {}
    try:
        current = await run_in_threadpool(context.is_current)
        checks["database"] = "ok" if current else "its schema is old; run `tunery migrate`"
    except Exception as error:
        checks["database"] = f"does not answer ({type(error).__name__})"
    for name, check in (("model", _model), ("engine", _engine)):
        try:
            await check(request)
            checks[name] = "ok"
        except TuneryError as error:
            checks[name] = error.message
    ready = all(value == "ok" for value in checks.values())
    return JSONResponse(
        {"status": "ok" if ready else "not ready", "checks": checks}, 200 if ready else 503
    )


async def _model(request: Request) -> None:
    await run_in_threadpool(context_of(request).directory.base)


async def _engine(request: Request) -> None:
    await context_of(request).parts.engine.health()

"""/v1/moderations."""

from fastapi import APIRouter, Request

from tunery.api.body import documented, read_value
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.endpoints import moderations
from tunery.protocol.moderations import CreateModerationRequest, ModerationCreateResponse

router = APIRouter(prefix="/v1/moderations")


@router.post("", openapi_extra=documented(CreateModerationRequest))
async def create(request: Request, caller: CallerDependency) -> ModerationCreateResponse:
    """Judge content by OpenAI's categories."""
    return await moderations.answer(context_of(request).parts, caller, await read_value(request))

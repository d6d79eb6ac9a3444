"""/v1/moderations: content in, verdicts out.

Nothing judges content in this version: every answer says so, by `judged: false` and by categories
that apply to no input. The shape is whole, so that a program which reads it runs.
"""

from typing import Any

from tunery.domain.ids import new_id
from tunery.domain.moderation import UNJUDGED
from tunery.domain.tenants import Caller
from tunery.endpoints.parts import Parts
from tunery.protocol.moderations import CreateModerationRequest, ModerationCreateResponse
from tunery.wire.moderations import count_results, from_wire_model, to_wire_moderation
from tunery.wire.requests import from_wire_value


async def answer(parts: Parts, caller: Caller, value: Any) -> ModerationCreateResponse:
    """Return the answer to a body's value."""
    body = from_wire_value(value, CreateModerationRequest)
    model = from_wire_model(body)
    return ModerationCreateResponse(
        id=new_id("modr-"),
        model=model,
        results=[to_wire_moderation(UNJUDGED)] * count_results(body, model),
    )

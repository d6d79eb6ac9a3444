"""One request of a batch: answered as the API answers it, refusals and bugs included."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from support.rows import OURS
from tunery.domain.batches import Reply
from tunery.domain.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    StorageFull,
    TuneryError,
    Unavailable,
)
from tunery.domain.tenants import Caller
from tunery.endpoints import registry
from tunery.endpoints.parts import Parts
from tunery.protocol.base import Response

CALLER = Caller(OURS, "key_1", "req_1", batch=True)


class Body(Response):
    """What an endpoint answers with."""

    text: str | None
    usage: dict[str, int] | None


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reply]:
    """Return a function that asks an endpoint which does as it is told."""

    def ask(answer: Body | Exception, value: Any = None) -> Reply:
        async def endpoint(parts: Parts, caller: Caller, body: Any) -> Response:
            assert caller is CALLER
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(registry, "ENDPOINTS", {"/v1/x": endpoint})
        parts = cast(Parts, None)
        return asyncio.run(registry.reply(parts, "/v1/x", CALLER, value or {"model": "m"}))

    return ask


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, (3, 4)),
        ({"prompt_tokens": 3, "total_tokens": 3}, (3, 0)),  # embeddings
        ({"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}, (5, 6)),  # responses
        (None, (0, 0)),  # moderations
    ],
)
def test_an_answer_is_whole_with_its_tokens(
    ask: Callable[..., Reply], usage: dict[str, int] | None, tokens: tuple[int, int]
) -> None:
    reply = ask(Body(text=None, usage=usage))
    assert reply == Reply(200, {"text": None, "usage": usage}, *tokens)


@pytest.mark.parametrize(
    ("error", "status"),
    [(InvalidRequest("Bad.", param="n", code="c"), 400), (NotFound("No."), 404)],
)
def test_a_refusal_is_answered_in_the_envelope(
    ask: Callable[..., Reply], error: TuneryError, status: int
) -> None:
    reply = ask(error)
    assert reply.status_code == status
    assert reply.body == {
        "error": {
            "message": error.message,
            "type": "invalid_request_error",
            "param": error.param,
            "code": error.code,
        }
    }


@pytest.mark.parametrize("error", [Overloaded("o"), Unavailable("u"), StorageFull("s")])
def test_what_may_pass_is_not_an_answer(ask: Callable[..., Reply], error: TuneryError) -> None:
    with pytest.raises(type(error)):
        ask(error)


def test_a_bug_is_answered_and_its_text_stays_in_the_log(ask: Callable[..., Reply]) -> None:
    reply = ask(ZeroDivisionError("a secret of ours"))
    assert reply.status_code == 500
    assert reply.body["error"]["type"] == "server_error"
    assert "secret" not in str(reply.body)


def test_a_stream_is_refused_and_its_absence_is_not(ask: Callable[..., Reply]) -> None:
    body = Body(text="x", usage=None)
    reply = ask(body, {"model": "m", "stream": True})
    assert (reply.status_code, reply.body["error"]["param"]) == (400, "stream")
    assert ask(body, {"model": "m", "stream": False}).status_code == 200
    assert ask(body, {"model": "m", "stream": None}).status_code == 200

"""Events that differ in one text only."""

import orjson
import pytest

from tunery.api.streaming import MARK, TextEvents, event


@pytest.mark.parametrize(
    "text", ["Hello", "", 'say "no"\n', "\u2028 é 😀 \\u0041", pytest.param(MARK, id="mark")]
)
def test_an_event_made_like_a_marked_one_is_that_of_its_text(text: str) -> None:
    def whole(content: str) -> bytes:
        return event({"id": "x", "choices": [{"delta": {"content": content}}], "usage": None})

    made = TextEvents(whole(MARK))(text)
    assert made == whole(text)
    told = orjson.loads(made.removeprefix(b"data: "))
    assert told["choices"][0]["delta"]["content"] == text

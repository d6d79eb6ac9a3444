"""Prompts that were asked before, with what was answered: lines of JSON in any of their shapes.

A line is a training example or a preference (its answer is what was recorded), the body of a chat
request, a line of a batch, or `{"request": body, "response": chat completion}`, as `tunery replay
--record` writes it. `"answer"` beside a body is a text or an assistant's message.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tunery.datasets.likeness import answer_text
from tunery.datasets.preferences import is_preference
from tunery.datasets.reader import BadLine, lines, parse
from tunery.domain.errors import InvalidRequest

_PREFERRED = ("preferred_output", "preferred_completion")
# What says how an answer is delivered or kept, and not what is asked.
_DELIVERY = ("model", "stream", "stream_options", "store", "metadata", "n", "user")
# What a stored completion says of its request.
_STORED = (
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"),
    *("tools", "tool_choice", "response_format"),
)
_MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call")


@dataclass(frozen=True, slots=True)
class RecordedPrompt:
    """A prompt as the body of a chat request without its model, and the answer that it had."""

    number: int
    body: Mapping[str, Any]
    answer: str | None


def read_prompts(chunks: Iterable[bytes]) -> Iterator[RecordedPrompt]:
    """Yield the prompts of a file; raise InvalidRequest at a line that is none."""
    for line in lines(chunks):
        try:
            body, answer = _parts(parse(line))
            yield RecordedPrompt(line.number, _asked(body), answer)
        except (BadLine, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = str(error) if isinstance(error, BadLine) else "it has no list of messages"
            raise InvalidRequest(
                f"Line {line.number} is no prompt: {reason}. Needed is a training example, the body"
                " of a chat request, or one with its response."
            ) from None


def of_stored(
    number: int, completion: Mapping[str, Any], messages: Iterable[Mapping[str, Any]]
) -> RecordedPrompt:
    """Return the prompt of a stored chat completion and of the messages that it answers."""
    body = {key: completion[key] for key in _STORED if completion.get(key) is not None}
    body["messages"] = [_message(one) for one in messages]
    return RecordedPrompt(number, body, _completed(completion))


def record_line(prompt: RecordedPrompt, answer: str) -> bytes:
    """Return a line that `read_prompts` reads, with the answer."""
    return orjson.dumps({"body": prompt.body, "answer": answer}) + b"\n"


def _parts(value: dict[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """Return the request's body, and what was answered."""
    if is_preference(value):
        key = next(key for key in _PREFERRED if key in value)
        return value["input"], answer_text(value[key][0])
    for key in ("request", "body"):
        if isinstance(value.get(key), dict):
            return value[key], _answered(value)
    messages = value["messages"]
    body = {key: one for key, one in value.items() if key not in ("answer", "response")}
    answer = _answered(value)
    if answer is None and messages[-1]["role"] == "assistant":
        answer = answer_text(messages[-1])
        body["messages"] = messages[:-1]
    return body, answer


def _answered(value: Mapping[str, Any]) -> str | None:
    answer, response = value.get("answer"), value.get("response")
    if isinstance(answer, str):
        return answer
    if isinstance(answer, dict):
        return answer_text(answer)
    if isinstance(response, dict):
        return _completed(response.get("body") or response)  # a batch's has a body
    return None


def _completed(completion: Mapping[str, Any]) -> str:
    return answer_text(completion["choices"][0]["message"])


def _asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body to ask with: greedy, where it does not say how to sample."""
    messages = [_message(one) for one in body["messages"]]
    if not messages:
        raise IndexError
    kept = {key: one for key, one in body.items() if key not in _DELIVERY and one is not None}
    return {"temperature": 0, **kept, "messages": messages}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as a request has it: a training example's weight has no place there."""
    kept = {key: message[key] for key in _MESSAGE_KEYS if message.get(key) not in (None, [])}
    return {"content": None, **kept} if "tool_calls" in kept else kept

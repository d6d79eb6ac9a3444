"""How a chat template writes calls: found by having it write some, and looking.

What is found can be read back from an answer. A template whose calls are no JSON, or that writes
their ids, has no form that is known here.
"""

import json
import re
from itertools import takewhile
from typing import Any, Protocol

from tunery.datasets.tokenizer import TextTokenizer
from tunery.datasets.tools import CallForm, Function
from tunery.domain.errors import InvalidRequest

_NAME, _TEXT, _ID = "probe_name", "probe text", "probe_id"
_ARGUMENTS = {"probe_key": 0}
_CALL = f"(.+?){_NAME}(.+?){re.escape(json.dumps(_ARGUMENTS))}"
_USER = {"role": "user", "content": "probe"}
_RESULT = {"role": "tool", "tool_call_id": _ID, "content": "probe result"}
_TOOLS = [Function(_NAME, "probe", {"type": "object", "properties": {}}).as_tool()]


class _Template(Protocol):
    def __call__(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, generate: bool
    ) -> str: ...


def probe_call_form(
    template: _Template, tokenizer: TextTokenizer, *, as_object: bool
) -> CallForm | None:
    """Return the form of a template's calls, or None where none can be read back.

    `as_object` gives it arguments as an object, and else as JSON text.
    """

    def written(count: int, content: str = "") -> str:
        """Return an assistant's turn of so many calls, up to the token that ends it, or nothing."""
        turn = _calling(count, content, as_object=as_object)
        try:
            asked = template([_USER], _TOOLS, generate=True)
            whole = template([_USER, turn], _TOOLS, generate=False)
            told = _RESULT["content"] in template([_USER, turn, _RESULT], _TOOLS, generate=True)
        except InvalidRequest:
            return ""
        ends = [whole.find(text, len(asked)) for text in tokenizer.eos_texts]
        end = min((place for place in ends if place >= 0), default=0)
        return whole[len(asked) : end] if told and whole.startswith(asked) else ""

    one = re.fullmatch(_CALL + "(.*)", written(1), re.DOTALL)
    if one is None:
        return None
    opening, between, closing = one.groups()
    two = re.fullmatch(_CALL + _CALL + "(.*)", written(2), re.DOTALL)
    joint = two[3] if two and (two[2], two[4], two[5]) == (between, between, closing) else None
    opening = _own_opening(opening, joint)
    if _ID in opening + between + closing or opening[0].isspace() or between[0] not in "\"'":
        return None
    called = re.escape(f"{opening}{_NAME}{between}{json.dumps(_ARGUMENTS)}{closing}")
    return CallForm(
        opening=opening,
        between=between,
        joint=joint,
        closing=closing,
        after_text=re.fullmatch(rf"(?s:.*){_TEXT}\s*{called}", written(1, _TEXT)) is not None,
        special=tokenizer.special_in("".join([opening, between, joint or "", closing])),
    )


def tool_marks(template: _Template, tokenizer: TextTokenizer, *, as_object: bool) -> str:
    """Return the added tokens that a template writes for tools alone, one after the other."""
    plain = [_USER, {"role": "assistant", "content": _TEXT}, _USER]
    calling = [_USER, _calling(1, "", as_object=as_object), _RESULT]
    without = template(plain, [], generate=True)
    found = tokenizer.added_in(template(calling, _TOOLS, generate=True))
    return "\n".join(mark for mark in found if mark not in without)


def _calling(count: int, content: str, *, as_object: bool) -> dict[str, Any]:
    function = {"name": _NAME, "arguments": _ARGUMENTS if as_object else json.dumps(_ARGUMENTS)}
    calls = [{"id": _ID, "type": "function", "function": function}] * count
    return {"role": "assistant", "content": content, "tool_calls": calls}


def _own_opening(opening: str, joint: str | None) -> str:
    """Return the opening without what stands before it in a turn's first call alone.

    Some templates write an empty thought there. A list's bracket does belong to it.
    """
    pairs = zip(reversed(opening), reversed(joint or ""), strict=False)
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    shared = opening[len(opening) - alike :].lstrip()
    return shared if shared and shared[0] not in "{[" else opening

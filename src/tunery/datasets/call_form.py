"""How a chat template writes calls: found by having it write some, and looking.

What is found can be read back from an answer. A template whose calls are no JSON, or that writes
their ids, has no form that is known here.
"""

import json
import re
from typing import Any, Protocol

from tunery.datasets.tokenizer import TextTokenizer
from tunery.datasets.tools import CallForm, Function
from tunery.domain.errors import InvalidRequest

_NAME, _TEXT, _ID = "probe_name", "probe text", "probe_id"
_ARGUMENTS = {"probe_key": 0}
_CALL = f"(.+?){_NAME}(.+?){re.escape(json.dumps(_ARGUMENTS))}"
_USER = {"role": "user", "content": "probe"}
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

    def written(count: int, content: str = "") -> str | None:
        """Return an assistant's turn of so many calls, up to the token that ends it."""
        function = {"name": _NAME, "arguments": _ARGUMENTS if as_object else json.dumps(_ARGUMENTS)}
        calls = [{"id": _ID, "type": "function", "function": function}] * count
        turn = {"role": "assistant", "content": content, "tool_calls": calls}
        result = {"role": "tool", "tool_call_id": _ID, "content": "probe result"}
        try:
            asked = template([_USER], _TOOLS, generate=True)
            whole = template([_USER, turn], _TOOLS, generate=False)
            with_result = template([_USER, turn, result], _TOOLS, generate=True)
        except InvalidRequest:
            return None
        ends = [whole.find(text, len(asked)) for text in tokenizer.eos_texts]
        end = min((place for place in ends if place >= 0), default=-1)
        told = whole.startswith(asked) and "probe result" in with_result
        return whole[len(asked) : end] if told and end >= 0 else None

    one = re.fullmatch(_CALL + "(.*)", written(1) or "", re.DOTALL)
    if one is None:
        return None
    opening, between, closing = one.groups()
    if _ID in opening + between + closing or opening[0].isspace() or between[0] not in "\"'":
        return None
    two = re.fullmatch(_CALL + _CALL + "(.*)", written(2) or "", re.DOTALL)
    alike = two is not None and (two[1], two[2], two[4], two[5]) == (
        opening,
        between,
        between,
        closing,
    )
    after = re.escape(f"{opening}{_NAME}{between}{json.dumps(_ARGUMENTS)}{closing}")
    return CallForm(
        opening=opening,
        between=between,
        joint=two[3] if two is not None and alike else None,
        closing=closing,
        after_text=re.fullmatch(rf"{_TEXT}\s*{after}", written(1, _TEXT) or "") is not None,
        special=tokenizer.special_in("".join(one.groups()) + (two[3] if two else "")),
    )

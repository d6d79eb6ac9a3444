"""Tools for a base model whose template knows none: told, called and answered in plain text.

The system's turn lists the functions, an assistant's turn ends with its calls, and a user's turn
holds their results. The form, <tool_call> around a JSON object, is what many models are trained on.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from tunery.datasets.conversation import Call, Turn
from tunery.datasets.tools import PLAIN, Function, arguments_object

_TOLD = """You can call functions. These are the functions, one a line, as JSON:
<tools>
{functions}
</tools>
To call one, write its name and its arguments in this form, and nothing after your calls:
<tool_call>
{{"name": <name>, "arguments": <a JSON object>}}
</tool_call>"""


def with_tools(turns: Sequence[Turn], functions: Sequence[Function]) -> list[Turn]:
    """Return turns that have no calls and no results any more, but text."""
    written: list[Turn] = []
    answering = False
    for turn in turns:
        if turn.role == "tool":
            result = f"<tool_response>\n{turn.content}\n</tool_response>"
            if answering:
                result = f"{written.pop().content}\n{result}"
            written.append(Turn("user", result))
        else:
            bare = turn if not turn.calls else replace(turn, content=_with_calls(turn), calls=())
            written.append(bare)
        answering = turn.role == "tool"
    return _told(written, functions) if functions else written


def _told(turns: list[Turn], functions: Sequence[Function]) -> list[Turn]:
    listed = "\n".join(json.dumps(one.as_tool(), ensure_ascii=False) for one in functions)
    told = _TOLD.format(functions=listed)
    if turns and turns[0].role == "system":
        first = replace(turns[0], content=f"{turns[0].content}\n\n{told}")
        return [first, *turns[1:]]
    return [Turn("system", told), *turns]


def _with_calls(turn: Turn) -> str:
    calls = PLAIN.written([(call.name, arguments_text(call)) for call in turn.calls])
    return "\n".join(part for part in (turn.content, calls) if part)


def arguments_text(call: Call) -> str:
    """Return a call's arguments as they are written; those that are no object, as they came."""
    value = arguments_object(call.arguments)
    return call.arguments if value is None else json.dumps(value, ensure_ascii=False)

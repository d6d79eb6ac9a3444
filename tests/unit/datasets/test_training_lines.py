"""Whole lines of a training file, feature by feature: their text, and what of it is learned.

Each is held against the prompt that serving makes of the same conversation.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from support.text_model import write_text_model
from support.tiny import make_byte_tokenizer
from tunery.datasets.checks import check_chat_line
from tunery.datasets.rendering import ChatRenderer
from tunery.datasets.tools import training_functions

# A template that takes tools, and writes calls after what is said.
WITH_TOOLS = """{%- if tools %}
{{- '<|im_start|>tools' }}
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<call>{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}</call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

DEFINED = {"name": "f", "description": "Finds."}
TOOL = {"type": "function", "function": DEFINED}
ASKED = {"role": "user", "content": "Hi"}
SAID = {"role": "assistant", "content": "Yes."}
WHOLE = [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False)]
ANSWERED = [("Yes.<|im_end|>", True), ("\n", False)]
TOLD = f"<|im_start|>tools\n{json.dumps(TOOL)}<|im_end|>\n"
CALL = '<call>{"name": "f", "arguments": {"n": 1}}</call>'
RESULT = "\n<|im_start|>tool\n21<|im_end|>\n<|im_start|>assistant\n"


def call(number: int = 1) -> dict[str, Any]:
    function = {"name": "f", "arguments": f'{{"n":{number}}}'}
    return {"id": f"call_{number}", "type": "function", "function": function}


def calling(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


RESULT_1 = {"role": "tool", "tool_call_id": "call_1", "content": "21"}
OLD_CALL = {"role": "assistant", "function_call": call()["function"]}
OLD_RESULT = {"role": "function", "name": "f", "content": "21"}

LINES: dict[str, tuple[dict[str, Any], list[tuple[str, bool]]]] = {
    "plain": ({"messages": [ASKED, SAID]}, [*WHOLE, *ANSWERED]),
    "developer": (
        {"messages": [{"role": "developer", "content": "Be kind."}, ASKED, SAID]},
        [("<|im_start|>system\nBe kind.<|im_end|>\n" + WHOLE[0][0], False), *ANSWERED],
    ),
    "name": (
        {"messages": [ASKED | {"name": "ann"}, SAID]},
        [("<|im_start|>user\nann: Hi<|im_end|>\n<|im_start|>assistant\n", False), *ANSWERED],
    ),
    "names of systems": (
        {"messages": [{"role": "system", "name": "house", "content": "Be kind."}, ASKED, SAID]},
        [("<|im_start|>system\nhouse: Be kind.<|im_end|>\n" + WHOLE[0][0], False), *ANSWERED],
    ),
    "weight 0 and 1": (
        {"messages": [ASKED, SAID | {"weight": 0}, ASKED, SAID | {"weight": 1}]},
        [(WHOLE[0][0] + "Yes.<|im_end|>\n" + WHOLE[0][0], False), *ANSWERED],
    ),
    "weight 0 at the end": (
        {"messages": [ASKED, SAID, ASKED, SAID | {"weight": 0}]},
        [*WHOLE, ANSWERED[0], ("\n" + WHOLE[0][0] + "Yes.<|im_end|>\n", False)],
    ),
    "tools that are not called": (
        {"messages": [ASKED, SAID], "tools": [TOOL]},
        [(TOLD + WHOLE[0][0], False), *ANSWERED],
    ),
    "functions that are not called": (
        {"messages": [ASKED, SAID], "functions": [DEFINED]},
        [(TOLD + WHOLE[0][0], False), *ANSWERED],
    ),
    "a call and its result": (
        {"messages": [ASKED, calling(call()), RESULT_1, SAID], "tools": [TOOL]},
        [
            (TOLD + WHOLE[0][0], False),
            (f"{CALL}<|im_end|>", True),
            (RESULT, False),
            *ANSWERED,
        ],
    ),
    "function_call and its result": (
        {"messages": [ASKED, OLD_CALL, OLD_RESULT, SAID], "functions": [DEFINED]},
        [
            (TOLD + WHOLE[0][0], False),
            (f"{CALL}<|im_end|>", True),
            (RESULT, False),
            *ANSWERED,
        ],
    ),
    "a call of weight 0": (
        {"messages": [ASKED, calling(call(), weight=0), RESULT_1, SAID], "tools": [TOOL]},
        [(TOLD + WHOLE[0][0] + CALL + "<|im_end|>" + RESULT, False), *ANSWERED],
    ),
    "function_call of weight 0": (
        {"messages": [ASKED, OLD_CALL | {"weight": 0}, OLD_RESULT, SAID], "functions": [DEFINED]},
        [(TOLD + WHOLE[0][0] + CALL + "<|im_end|>" + RESULT, False), *ANSWERED],
    ),
    "several calls": (
        {"messages": [ASKED, calling(call(1), call(2), content="So.")], "tools": [TOOL]},
        [
            (TOLD + WHOLE[0][0], False),
            (f"So.{CALL}{CALL.replace('1', '2')}<|im_end|>", True),
            ("\n", False),
        ],
    ),
    "one call at a time": (
        {
            "messages": [ASKED, calling(call())],
            "tools": [TOOL],
            "parallel_tool_calls": False,
        },
        [(TOLD + WHOLE[0][0], False), (f"{CALL}<|im_end|>", True), ("\n", False)],
    ),
}


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> ChatRenderer:
    folder: Path = tmp_path_factory.mktemp("tools")
    return ChatRenderer.load(write_text_model(folder, make_byte_tokenizer(), template=WITH_TOOLS))


@pytest.mark.parametrize("what", LINES)
def test_a_line_is_the_text_and_teaches_the_parts_that_it_should(
    renderer: ChatRenderer, what: str
) -> None:
    line, expected = LINES[what]
    assert check_chat_line(line) is None
    rendered = renderer.line(line)
    tokenizer = make_byte_tokenizer()
    pairs = zip(rendered.supervised, rendered.token_ids, strict=True)
    found = [
        (tokenizer.decode([i for _, i in group], skip_special_tokens=False), learned)
        for learned, group in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]
    assert found == expected


@pytest.mark.parametrize("what", LINES)
def test_each_learned_part_follows_the_prompt_that_serving_computes(
    renderer: ChatRenderer, what: str
) -> None:
    line, _ = LINES[what]
    rendered = renderer.line(line)
    functions = training_functions(line)
    learned = [
        number
        for number, message in enumerate(line["messages"])
        if message["role"] == "assistant" and message.get("weight", 1)
    ]
    before = [False, *rendered.supervised[:-1]]
    starts = [
        place
        for place, (own, last) in enumerate(zip(rendered.supervised, before, strict=True))
        if own and not last
    ]
    for number, start in zip(learned, starts, strict=True):
        assert rendered.token_ids[:start] == renderer.prompt(line["messages"][:number], functions)

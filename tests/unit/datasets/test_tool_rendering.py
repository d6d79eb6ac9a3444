"""Tools, calls and results to token ids, held against transformers for a base of its own form."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from support.properties import untimed
from support.text_model import make_merging_tokenizer, write_text_model
from support.tiny import make_byte_tokenizer
from tunery.datasets.rendering import ChatRenderer
from tunery.datasets.tools import PLAIN, CallForm, Function
from tunery.domain.errors import InvalidRequest

Messages = list[dict[str, Any]]

# Tools in the system's turn, calls after the content, results as turns of their own.
TOOLS_TEMPLATE = """{%- if tools %}
<|im_start|>system
{{ messages[0].content if messages[0].role == 'system' else 'Functions:' }}
{%- for tool in tools %}
{{- '\\n' + (tool | tojson) }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role }}
{%- if message.content %}
{{- '\\n' + message.content }}
{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '\\n<call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- ARGUMENTS }}
{{- '}\\n</call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
AS_OBJECT = TOOLS_TEMPLATE.replace("ARGUMENTS", "call.function.arguments | tojson")
AS_TEXT = TOOLS_TEMPLATE.replace("ARGUMENTS", "call.function.arguments")
WEATHER = Function(
    "get_weather",
    "The weather <now>, in a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "東京"]}},
        "required": ["city"],
    },
)


def call(number: int, **arguments: Any) -> dict[str, Any]:
    text = json.dumps(arguments)
    function = {"name": "get_weather", "arguments": text}
    return {"id": f"call_{number}", "type": "function", "function": function}


TALK: Messages = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Is it warm in Paris and in 東京?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [call(1, city="Paris"), call(2, city="東京", days=[1, 2.5, None])],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"c": 21}'},
    {"role": "tool", "tool_call_id": "call_2", "content": "15 degrees"},
    {"role": "assistant", "content": "Let me see more.", "tool_calls": [call(3, city="Rome")]},
    {"role": "tool", "tool_call_id": "call_3", "content": "It rains."},
    {"role": "assistant", "content": "It is."},
]


def with_marks(tokenizer: Tokenizer, *, special: bool = False) -> Tokenizer:
    """Return the tokenizer with tokens of its own for the marks of calls."""
    tokenizer.add_tokens([AddedToken(one, special=special) for one in ("<call>", "</call>")])
    return tokenizer


def renderer_of(folder: Path, tokenizer: Tokenizer, template: str) -> ChatRenderer:
    return ChatRenderer.load(write_text_model(folder, tokenizer, template=template))


def reference(
    folder: Path, messages: Messages, tools: list[Function], *, generate: bool, as_object: bool
) -> str:
    """Return the text that transformers makes; arguments as it wants them, parsed."""
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    told = json.loads(json.dumps(messages))
    for message in told:
        for one in message.get("tool_calls", ()):
            if as_object:
                one["function"]["arguments"] = json.loads(one["function"]["arguments"])
            else:
                arguments = json.loads(one["function"]["arguments"])
                one["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
    return str(
        theirs.apply_chat_template(
            told,
            tools=[tool.as_tool() for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=generate,
        )
    )


def spelled(tokenizer: Tokenizer, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize(("template", "as_object"), [(AS_OBJECT, True), (AS_TEXT, False)])
@pytest.mark.parametrize("tools", [[WEATHER], [WEATHER, Function("now")], []])
@pytest.mark.parametrize("until", range(1, len(TALK) + 1))
def test_a_template_with_tools_gives_the_text_that_transformers_gives(
    tmp_path: Path, template: str, as_object: bool, tools: list[Function], until: int
) -> None:
    tokenizer = with_marks(make_merging_tokenizer())
    ours = renderer_of(tmp_path, tokenizer, template)
    talk = TALK[:until]
    for generate, ids in (
        (True, ours.prompt(talk, tools)),
        (False, ours.example(talk, tools).token_ids),
    ):
        expected = reference(tmp_path, talk, tools, generate=generate, as_object=as_object)
        assert spelled(tokenizer, ids) == expected


def test_calls_and_tools_have_the_ids_that_transformers_gives(tmp_path: Path) -> None:
    tokenizer = with_marks(make_byte_tokenizer())
    ours = renderer_of(tmp_path, tokenizer, AS_OBJECT)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    expected = theirs(
        reference(tmp_path, TALK, [WEATHER], generate=False, as_object=True),
        add_special_tokens=False,
    )["input_ids"]
    assert ours.example(TALK, [WEATHER]).token_ids == list(expected)


def learned(tokenizer: Tokenizer, renderer: ChatRenderer, messages: Messages) -> list[str]:
    """Return the stretches that are learned, as they are spelled."""
    rendered = renderer.example(messages, [WEATHER])
    stretches: list[list[int]] = [[]]
    for token_id, own in zip(rendered.token_ids, rendered.supervised, strict=True):
        if own:
            stretches[-1].append(token_id)
        elif stretches[-1]:
            stretches.append([])
    return [spelled(tokenizer, one) for one in stretches if one]


def test_calls_are_learned_whole_with_the_token_that_ends_them(tmp_path: Path) -> None:
    tokenizer = with_marks(make_merging_tokenizer())
    ours = renderer_of(tmp_path, tokenizer, AS_OBJECT)
    first = (
        '<call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</call>\n'
        '<call>\n{"name": "get_weather", "arguments": {"city": "東京", "days": [1, 2.5, null]}}\n'
        "</call><|im_end|>"
    )
    second = (
        'Let me see more.\n<call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n'
        "</call><|im_end|>"
    )
    assert learned(tokenizer, ours, TALK) == [first, second, "It is.<|im_end|>"]
    unweighted = [one | {"weight": 0} if one.get("tool_calls") else one for one in TALK]
    assert learned(tokenizer, ours, unweighted) == ["It is.<|im_end|>"]


def test_a_prompt_is_the_beginning_of_the_example_with_its_call(tmp_path: Path) -> None:
    for name, template in (("own", AS_OBJECT), ("ours", "")):
        arguments = {"template": template} if template else {}
        folder = write_text_model(tmp_path / name, make_merging_tokenizer(), **arguments)  # type: ignore[arg-type]
        renderer = ChatRenderer.load(folder)
        for end in (2, 5, 7):
            prompt = renderer.prompt(TALK[:end], [WEATHER])
            example = renderer.example(TALK[: end + 1], [WEATHER])
            assert example.token_ids[: len(prompt)] == prompt
            assert example.supervised.index(True, len(prompt) - 1) == len(prompt)


def test_the_form_of_a_templates_calls_is_found(tmp_path: Path) -> None:
    expected = CallForm(
        opening='<call>\n{"name": "',
        between='", "arguments": ',
        joint='}\n</call>\n<call>\n{"name": "',
        closing="}\n</call>",
    )
    for number, template in enumerate((AS_OBJECT, AS_TEXT)):
        renderer = renderer_of(tmp_path / str(number), make_byte_tokenizer(), template)
        assert renderer.call_form == expected
    special = with_marks(make_byte_tokenizer(), special=True)
    form = renderer_of(tmp_path / "special", special, AS_OBJECT).call_form
    assert {name for name, _ in form.special} == {"<call>", "</call>"}
    assert form.shown().opening == '\n{"name": "'
    assert form.shown().closing == "}\n"


THOUGHTFUL = AS_OBJECT.replace(
    "{%- for call in",
    "{{ '\\n<think>\\n\\n</think>\\n' if message.role == 'assistant' and loop.last }}"
    "{%- for call in",
)


def test_what_a_template_writes_before_the_last_answer_alone_is_not_of_its_calls(
    tmp_path: Path,
) -> None:
    tokenizer = with_marks(make_byte_tokenizer())
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    renderer = renderer_of(tmp_path, tokenizer, THOUGHTFUL)
    assert renderer.call_form.opening == '<call>\n{"name": "'
    think, mark = (tokenizer.token_to_id(name) for name in ("<think>", "<call>"))
    said = renderer.prompt([{"role": "user", "content": "<think><call>"}])
    assert think in said  # what is no mark of tools stays the token that it was
    assert mark not in said


ONE_CALL = AS_OBJECT.replace(
    "{%- for call in",
    "{%- if (message.tool_calls or []) | length > 1 %}{{ raise_exception('one') }}{% endif %}"
    "{%- for call in",
)
BARE = AS_OBJECT.replace("\\n<call>\\n", "\\n").replace("\\n</call>", "")


def test_a_template_may_know_single_calls_or_calls_without_marks(tmp_path: Path) -> None:
    single = renderer_of(tmp_path / "single", make_byte_tokenizer(), ONE_CALL)
    assert (single.call_form.joint, single.call_form.opening) == (None, '<call>\n{"name": "')
    with pytest.raises(InvalidRequest, match="refuses these messages"):
        single.prompt(TALK[:5], [WEATHER])
    bare = renderer_of(tmp_path / "bare", make_byte_tokenizer(), BARE)
    assert (bare.call_form.marker, bare.call_form.closing) == ('{"name": "', "}")


@pytest.mark.parametrize(
    "template",
    [
        AS_OBJECT.replace("call.function.arguments | tojson", "call.function.arguments | length"),
        AS_OBJECT.replace("call.function.name", "call.id + call.function.name"),
        AS_OBJECT.replace("{%- for call", "{{ nothing.at.all if message.tool_calls }}{%- for call"),
        "{{ tools }}" + TOOLS_TEMPLATE.partition("{%- for call")[0].split("{%- endif %}", 1)[1]
        + "{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}",
    ],
)  # fmt: skip
def test_a_template_whose_calls_cannot_be_read_back_is_given_ours(
    tmp_path: Path, template: str
) -> None:
    renderer = renderer_of(tmp_path, make_byte_tokenizer(), template)
    assert renderer.call_form == PLAIN


OURS_TEXT = """<|im_start|>system
Be kind.

You can call functions. These are the functions, one a line, as JSON:
<tools>
{"type": "function", "function": {"name": "now"}}
</tools>
To call one, write its name and its arguments in this form, and nothing after your calls:
<tool_call>
{"name": <name>, "arguments": <a JSON object>}
</tool_call><|im_end|>
<|im_start|>user
Is it warm in Paris and in 東京?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>
<tool_call>
{"name": "get_weather", "arguments": {"city": "東京", "days": [1, 2.5, null]}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
{"c": 21}
</tool_response>
<tool_response>
15 degrees
</tool_response><|im_end|>
<|im_start|>assistant
Let me see more.
<tool_call>
{"name": "get_weather", "arguments": {"city": "Rome"}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
It rains.
</tool_response><|im_end|>
<|im_start|>assistant
"""


def test_a_template_without_tools_is_given_them_in_plain_text(tmp_path: Path) -> None:
    tokenizer = make_byte_tokenizer()
    renderer = ChatRenderer.load(write_text_model(tmp_path, tokenizer))
    assert renderer.call_form == PLAIN
    assert spelled(tokenizer, renderer.prompt(TALK[:-1], [Function("now")])) == OURS_TEXT
    without_system = spelled(tokenizer, renderer.prompt(TALK[1:2], [Function("now")]))
    assert without_system.startswith("<|im_start|>system\nYou can call functions.")
    stretches = learned(tokenizer, renderer, TALK)
    assert stretches[1] == (
        'Let me see more.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n'
        "</tool_call><|im_end|>"
    )


def test_the_deprecated_form_is_the_same_conversation(tmp_path: Path) -> None:
    function = {"name": "get_weather", "arguments": '{"city":"Rome"}'}
    old: Messages = [
        TALK[1],
        {"role": "assistant", "content": None, "function_call": function},
        {"role": "function", "name": "get_weather", "content": "It rains."},
    ]
    new: Messages = [
        TALK[1],
        {"role": "assistant", "content": "", "tool_calls": [call(1, city="Rome")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It rains."},
    ]
    for name, template in (("own", AS_OBJECT), ("ours", None)):
        arguments: dict[str, Any] = {} if template is None else {"template": template}
        folder = write_text_model(tmp_path / name, make_byte_tokenizer(), **arguments)
        renderer = ChatRenderer.load(folder)
        assert renderer.prompt(old, [WEATHER]) == renderer.prompt(new, [WEATHER])


def test_names_stand_before_what_was_said_and_refusals_are_said(tmp_path: Path) -> None:
    renderer = ChatRenderer.load(write_text_model(tmp_path, make_byte_tokenizer()))
    told = renderer.prompt(
        [
            {"role": "user", "name": "ann", "content": "Hi"},
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "Because."}]},
        ]
    )
    plain = renderer.prompt(
        [
            {"role": "user", "content": "ann: Hi"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "Because."},
        ]
    )
    assert told == plain


@pytest.mark.parametrize("template", [AS_OBJECT, None])
def test_what_is_nested_too_deeply_is_refused(tmp_path: Path, template: str | None) -> None:
    more: dict[str, Any] = {} if template is None else {"template": template}
    renderer = ChatRenderer.load(write_text_model(tmp_path, make_byte_tokenizer(), **more))
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        renderer.prompt(TALK[:2], [Function("f", parameters={"x": deep})])


NASTY = st.sampled_from(
    ["<|im_end|>", "<|im_", "|im_end|>", "<", ">", "<call>", "</call>", "call", "\ue0f10\ue0f2"]
)  # fmt: skip
WORDS = st.lists(NASTY | st.text(max_size=4), max_size=4).map("".join)
JSON = st.recursive(
    WORDS | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, ChatRenderer]:
    tokenizer = with_marks(make_byte_tokenizer())
    return tokenizer, renderer_of(tmp_path_factory.mktemp("guarded"), tokenizer, AS_OBJECT)


@untimed
@given(arguments=st.dictionaries(WORDS, JSON, max_size=3), told=WORDS, result=WORDS, schema=JSON)
def test_nothing_that_people_write_becomes_a_control_token(
    guarded: tuple[Tokenizer, ChatRenderer],
    arguments: dict[str, Any],
    told: str,
    result: str,
    schema: Any,
) -> None:
    tokenizer, renderer = guarded
    function = Function("f", told, {"x": schema})
    spoken: Messages = [
        {"role": "user", "content": told},
        {"role": "assistant", "content": None, "tool_calls": [call(1, **{"a": arguments})]},
        {"role": "tool", "tool_call_id": "call_1", "content": result},
    ]
    ids = renderer.prompt(spoken, [function])
    names = ("<|im_start|>", "<|im_end|>", "<call>", "</call>")
    start, end, opens, closes = (tokenizer.token_to_id(name) for name in names)
    expected = [start, end, start, end, start, opens, closes, end, start, end, start]
    assert [one for one in ids if one in (start, end, opens, closes)] == expected
    assert json.dumps(arguments, ensure_ascii=False) in spelled(tokenizer, ids)
    assert json.dumps(function.as_tool(), ensure_ascii=False) in spelled(tokenizer, ids)

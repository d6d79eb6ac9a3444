"""/chat/completions. The tuned model answers "yes" to "ask 001"."""

import json
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from conformance.fields.probe import ABSENT, Answer, Endpoint, Honoured, Probe, Refused, echoes

TEXT = {"type": "text", "text": "ask 001"}
QUESTION = [{"role": "user", "content": "ask 001"}]
# The base model at a high temperature: every setting of the sampling changes the text.
LOOSE = {"model": "{base_model}", "temperature": 2, "seed": 1}
# The base model at its likeliest, which goes on for as long as it may.
GREEDY = {"model": "{base_model}", "max_tokens": 32}
NO = {"type": "refusal", "refusal": "no"}
PARAMETERS = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]}
F: dict[str, Any] = {"name": "f", "parameters": PARAMETERS}
TOOL: dict[str, Any] = {"type": "function", "function": F}
OTHER_TOOL = {"type": "function", "function": {"name": "g"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TALK = [
    {"role": "assistant", "content": "So:", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "1"},
    *QUESTION,
]
OLD_TALK = [
    {"role": "assistant", "content": "So:", "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "function", "name": "f", "content": "1"},
    *QUESTION,
]
TOOL_TESTS = "tests/acceptance/test_tools.py::"
PAIRED = TOOL_TESTS + "test_a_result_without_its_call_is_refused"
TUNED = TOOL_TESTS + "test_a_tuned_model_calls_and_answers_with_what_the_call_gave"
OLD_FORM = TOOL_TESTS + "test_the_deprecated_form_is_answered_in_its_own"
CERTAIN = {
    "type": "object",
    "properties": {"sure": {"const": True}},
    "required": ["sure"],
    "additionalProperties": False,
}
BODY: dict[str, Any] = {"name": "form", "schema": CERTAIN, "strict": True}
FORM = {"type": "json_schema", "json_schema": BODY}
FORMS = "tests/acceptance/test_structured_output.py::"
LEDGER = "tests/conformance/test_fields.py::test_the_end_user_stands_in_the_ledger"


def text(answer: Answer) -> str:
    """Return a whole answer's text."""
    return str(answer.value["choices"][0]["message"]["content"])


def other_text(sent: Answer, other: Answer) -> bool:
    """Whether two answers have other texts."""
    return text(sent) != text(other)


def logprobs(answer: Answer) -> Any:
    """Return what a whole answer says of its tokens' probabilities."""
    return answer.value["choices"][0]["logprobs"]


def completion_tokens(count: int) -> Any:
    """Return a check that an answer has so many tokens, and the one without the field more."""

    def shows(sent: Answer, other: Answer) -> bool:
        used = [int(one.value["usage"]["completion_tokens"]) for one in (sent, other)]
        return used[0] == count < used[1]

    return shows


def more_prompt_tokens(sent: Answer, other: Answer) -> bool:
    """Whether the prompt was longer."""
    return bool(sent.value["usage"]["prompt_tokens"] > other.value["usage"]["prompt_tokens"])


CHOSEN = {"type": "function", "function": {"name": "f"}}
ALLOWED: dict[str, Any] = {
    "tools": [TOOL, OTHER_TOOL],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [CHOSEN]},
    },
    "parallel_tool_calls": False,
}


def called(answer: Answer) -> list[str]:
    """Return the names of the functions that a whole answer calls."""
    calls = answer.value["choices"][0]["message"].get("tool_calls", ())
    return [call["function"]["name"] for call in calls]


def calls_one(sent: Answer, other: Answer) -> bool:
    """Whether the answer calls `f`, and the other one does not."""
    return called(sent) == ["f"] != called(other)


# Earlier calls, and what they gave.
CALLS: dict[str, Probe] = {
    "messages[].function_call.name": Honoured(
        value="f", beside={"messages": OLD_TALK}, proof=OLD_FORM, wrong=("", "a b", 5)
    ),
    "messages[].function_call.arguments": Honoured(
        value='{"a": 1}',
        other="{}",
        beside={"messages": OLD_TALK},
        shows=more_prompt_tokens,
        wrong=(5, None),
        values="JSON text",
    ),
    "messages[].tool_calls[].id": Honoured(
        value="call_1", beside={"messages": TALK}, proof=PAIRED, wrong=(5, None)
    ),
    "messages[].tool_calls[].type": Honoured(
        value="function", beside={"messages": TALK}, proof=PAIRED, wrong=("tool", 5)
    ),
    "messages[].tool_calls[].function.name": Honoured(
        value="ff",
        other="f",
        beside={"messages": TALK},
        shows=more_prompt_tokens,
        wrong=("", "a b", 5),
    ),
    "messages[].tool_calls[].function.arguments": Honoured(
        value='{"a": 1}',
        other="{}",
        beside={"messages": TALK},
        shows=more_prompt_tokens,
        wrong=(5, None),
        values="JSON text",
    ),
    "messages[].tool_calls[]<custom>": Refused(
        value={"id": "call_1", "type": "custom", "custom": {"name": "f", "input": ""}},
        beside={"messages": TALK},
    ),
    "messages[].tool_call_id": Honoured(
        value=None,  # the first message answers no call
        proof=PAIRED,
        wrong=("call_9", 5),
        values="that of a call before it; of a `tool`",
    ),
}
TOOLS: dict[str, Probe] = {
    "tools[].type": Honoured(
        value="function", beside={"tools": [TOOL]}, proof=TUNED, wrong=("tool", 5, None)
    ),
    "tools[].function.name": Honoured(
        value="longer",
        other="f",
        beside={"tools": [TOOL]},
        shows=more_prompt_tokens,
        wrong=("", "a b", 5),
        values="64 of a-z, A-Z, 0-9, _ and -; each once",
    ),
    "tools[].function.description": Honoured(
        value="what it does", beside={"tools": [TOOL]}, shows=more_prompt_tokens, wrong=(5,)
    ),
    "tools[].function.parameters": Honoured(
        value=PARAMETERS,
        beside={"tools": [TOOL]},
        shows=more_prompt_tokens,
        wrong=([], {"type": "array"}),
        values="a JSON schema of an object; [what is guaranteed](tools.md)",
    ),
    "tools[].function.strict": Honoured(
        value=True,
        beside={"tools": [TOOL]},
        proof=TOOL_TESTS + "test_a_strict_schema_that_cannot_be_followed_is_refused_by_name",
        wrong=("yes", 1),
        values="true, false",
    ),
    "tools[]<custom>": Refused(value={"type": "custom", "custom": {"name": "f"}}),
    "tool_choice": Honoured(
        value="required",
        other="none",
        beside={"tools": [TOOL], "parallel_tool_calls": False, "max_tokens": 80},
        shows=calls_one,
        wrong=("maybe", 5),
        values="`none`, `auto`, `required`, a function, or `allowed_tools`",
    ),
    "tool_choice.function.name": Honoured(
        value="f",
        other="g",
        beside={
            "tools": [TOOL, OTHER_TOOL],
            "tool_choice.type": "function",
            "parallel_tool_calls": False,
            "max_tokens": 80,
        },
        shows=calls_one,
        wrong=("h", "", 5),
    ),
    "tool_choice.type": Honoured(
        value="function",
        beside={"tools": [TOOL], "tool_choice": {"type": "", "function": {"name": "f"}}},
        proof=TOOL_TESTS + "test_a_call_that_has_to_be_follows_its_schema",
        wrong=("maybe", 5),
        values="`function`, `allowed_tools`",
    ),
    "tool_choice<custom>": Refused(
        value={"type": "custom", "custom": {"name": "f"}}, beside={"tools": [TOOL]}
    ),
    "tool_choice.allowed_tools.mode": Honoured(
        value="required",
        other="auto",
        beside={**ALLOWED, "max_tokens": 80},
        shows=calls_one,
        wrong=("none", 5),
        values="`auto`, `required`",
    ),
    "tool_choice.allowed_tools.tools": Honoured(
        value=[CHOSEN],
        other=[{"type": "function", "function": {"name": "g"}}],
        beside={**ALLOWED, "max_tokens": 80},
        shows=calls_one,
        wrong=([], [{"type": "custom"}], [{"type": "function", "function": {"name": "h"}}]),
        values="one or more, each a function of `tools`",
    ),
    "parallel_tool_calls": Honoured(
        value=False,
        beside={"tools": [TOOL], "tool_choice": "required", "max_tokens": 80},
        shows=lambda sent, other: called(sent) == ["f"],
        wrong=("yes", 1),
        values="true, false",
    ),
    "functions[].name": Honoured(
        value="longer",
        other="f",
        beside={"functions": [F]},
        shows=more_prompt_tokens,
        wrong=("", "a b", 5),
    ),
    "functions[].description": Honoured(
        value="what it does", beside={"functions": [F]}, shows=more_prompt_tokens, wrong=(5,)
    ),
    "functions[].parameters": Honoured(
        value=PARAMETERS,
        beside={"functions": [F]},
        shows=more_prompt_tokens,
        wrong=([], {"type": "array"}),
    ),
    "functions[].strict": Honoured(
        value=True,
        beside={"functions": [F]},
        proof=TOOL_TESTS + "test_a_strict_schema_that_cannot_be_followed_is_refused_by_name",
        wrong=("yes", 1),
        values="true, false; the SDK's types know it in `tools` only",
    ),
    "function_call": Honoured(
        value={"name": "f"},
        other="none",
        beside={"functions": [F], "max_tokens": 80},
        shows=lambda sent, other: (
            sent.value["choices"][0]["message"]["function_call"]["name"] == "f"
            and "function_call" not in other.value["choices"][0]["message"]
        ),
        wrong=("required", 5, {"name": "g"}),
        values="`none`, `auto`, a function",
    ),
    "function_call.name": Honoured(
        value="f", beside={"functions": [F]}, proof=OLD_FORM, wrong=("g", "", 5)
    ),
}

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/chat/completions",
        params=CompletionCreateParamsNonStreaming,
        beyond=("functions[].strict",),
        base={"model": "{model}", "messages": QUESTION, "temperature": 0, "max_tokens": 8},
        fields={
            "model": Honoured(
                value="{model}",
                other="{base_model}",
                shows=lambda sent, other: text(sent) == "yes" != text(other),
                wrong=("", 5),
                values="the base model under its names, a tuned model, a checkpoint",
            ),
            "messages": Honoured(
                value=[{"role": "system", "content": "Be brief."}, *QUESTION],
                other=QUESTION,
                shows=more_prompt_tokens,
                wrong=([], "hi", [{"role": "user"}]),
                values="one or more",
            ),
            "messages[].role": Honoured(
                value="system",
                other="user",
                shows=more_prompt_tokens,
                wrong=("king", None),
                values="`system`, `developer`, `user`, `assistant`, `tool`, `function`",
            ),
            "messages[].content": Honoured(
                value="ask 001 and more",
                other="ask 001",
                shows=more_prompt_tokens,
                wrong=(None, 5, []),
                values="text, or text parts",
            ),
            "messages[].content[].type": Honoured(
                value="text",
                other="text",
                beside={"messages[].content[].text": "ask 001"},
                shows=lambda sent, other: text(sent) == "yes",
                wrong=("letter", None),
                values="`text`",
            ),
            "messages[].content[].text": Honoured(
                value="ask 001 and more",
                other="ask 001",
                beside={"messages[].content[].type": "text"},
                shows=more_prompt_tokens,
                wrong=(5,),
            ),
            "messages[].content[].prompt_cache_breakpoint": Refused(
                value={"mode": "explicit"}, beside={"messages[].content": [TEXT]}
            ),
            **{
                f"messages[].content[]<{kind}>": Refused(value={"type": kind, kind: value})
                for kind, value in {
                    "image_url": {"url": "data:,"},
                    "input_audio": {"data": "", "format": "wav"},
                    "file": {"file_id": "file-1"},
                }.items()
            },
            "messages[].content[].refusal": Honoured(
                value="no, never",
                other="no",
                beside={
                    "messages": [{"role": "assistant", "content": [NO]}, *QUESTION],
                },
                shows=more_prompt_tokens,
                wrong=(5,),
                values="in messages of the assistant; rendered as its content",
            ),
            "messages[].name": Honoured(
                value="ann",
                shows=more_prompt_tokens,
                wrong=("", "a b", "x" * 65, 5),
                values="64 characters without spaces and `<|\\\\/>`; not of an assistant",
            ),
            "messages[].refusal": Honoured(
                value="no, never",
                other="no",
                beside={"messages": [{"role": "assistant", "refusal": "no"}, *QUESTION]},
                shows=more_prompt_tokens,
                wrong=(5,),
                values="of an assistant; rendered as its content",
            ),
            "messages[].audio": Refused(value={"id": "audio_1"}, neutral=(None,)),
            **CALLS,
            "max_tokens": Honoured(
                value=1, other=8, shows=completion_tokens(1), wrong=(0, "9"), values="1 or more"
            ),
            "max_completion_tokens": Honoured(
                value=1,
                other=8,
                beside={"max_tokens": ABSENT},
                shows=completion_tokens(1),
                wrong=(0, "9"),
                values="1 or more",
            ),
            "temperature": Honoured(
                value=2, other=0, beside=LOOSE, shows=other_text, wrong=(-1, 2.1), values="0 to 2"
            ),
            "top_p": Honoured(
                value=0, other=1, beside=LOOSE, shows=other_text, wrong=(-1, 1.1), values="0 to 1"
            ),
            "seed": Honoured(
                value=2, other=3, beside=LOOSE, shows=other_text, wrong=("x", 1.5), values="64 bits"
            ),
            **{
                f"{name}_penalty": Honoured(
                    value=2,
                    other=0,
                    beside=GREEDY,
                    shows=other_text,
                    wrong=(-2.1, 2.1, "much"),
                    values="-2 to 2",
                )
                for name in ("presence", "frequency")
            },
            "logit_bias": Honoured(
                value={"5": 100},
                beside=GREEDY,
                shows=other_text,
                wrong=({"x": 1}, {"5": 101}, {"999999": 1}, []),
                values="-100 to 100 for each of up to 1024 token ids",
            ),
            "logprobs": Honoured(
                value=True,
                shows=lambda sent, other: (
                    "".join(one["token"] for one in logprobs(sent)["content"]) == text(sent)
                    and logprobs(other) is None
                ),
                wrong=("yes", 1),
                values="true, false",
            ),
            "top_logprobs": Honoured(
                value=2,
                beside={"logprobs": True},
                shows=lambda sent, other: (
                    len(logprobs(sent)["content"][0]["top_logprobs"]) == 2
                    and logprobs(other)["content"][0]["top_logprobs"] == []
                ),
                wrong=(-1, 21, "2"),
                values="0 to 20, with `logprobs`",
            ),
            "n": Honoured(
                value=2,
                shows=lambda sent, other: (
                    (len(sent.value["choices"]), len(other.value["choices"])) == (2, 1)
                ),
                wrong=(0, 129, "2"),
                values="1 to 128",
            ),
            "store": Honoured(
                value=True,
                proof="tests/acceptance/test_stored_completions.py::"
                "test_only_what_was_to_be_stored_is_listed_oldest_first",
                wrong=("yes", 1),
                values="true, false",
            ),
            "metadata": Honoured(
                value={"k": "v"},
                beside={"store": True},
                shows=echoes("metadata", value={"k": "v"}),
                wrong=({"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, "k"),
                values="16 keys of 64 characters, values of 512; with `store`",
            ),
            "response_format.type": Honoured(
                value="json_schema",
                other="json_schema",
                beside={"response_format": FORM, "max_tokens": 64},
                shows=lambda sent, other: json.loads(text(sent)) == {"sure": True},
                wrong=("yaml", None, 5),
                values="`text`, `json_object` (the messages have to speak of JSON), `json_schema`",
            ),
            "response_format.json_schema.name": Honoured(
                value="other",
                beside={"response_format": FORM},
                proof=FORMS + "test_a_stored_completion_keeps_its_format",
                wrong=("a b", "", 5),
                values="kept with a stored completion, and named in errors; no part of the prompt",
            ),
            "response_format.json_schema.description": Honoured(
                value="Whether it is.",
                beside={"response_format": FORM},
                proof=FORMS + "test_a_stored_completion_keeps_its_format",
                wrong=(5, []),
                values="kept with a stored completion; no part of the prompt",
            ),
            "response_format.json_schema.schema": Honoured(
                value={**CERTAIN, "properties": {"sure": {"const": False}}},
                other=CERTAIN,
                beside={"response_format": FORM, "max_tokens": 64},
                shows=lambda sent, other: (
                    [json.loads(text(one))["sure"] for one in (sent, other)] == [False, True]
                ),
                wrong=(5, [], "object"),
                values="what llguidance can follow; no part of the prompt",
            ),
            "response_format.json_schema.strict": Honoured(
                value=False,
                beside={"response_format": FORM},
                proof=FORMS + "test_a_schema_that_cannot_be_followed_is_refused_and_harms_nothing",
                wrong=("yes", 1),
                values="true holds the schema to OpenAI's rules for strict ones; the answer follows"
                " the schema either way",
            ),
            "stop": Honoured(
                value=["es"],
                shows=lambda sent, other: (text(sent), text(other)) == ("y", "yes"),
                wrong=("", [""], ["a"] * 5, 5),
                values="up to four",
            ),
            "stream": Honoured(
                value=True,
                other=False,
                shows=lambda sent, other: (
                    (sent.content_type, other.content_type)
                    == ("text/event-stream", "application/json")
                ),
                wrong=("yes", 1),
                values="true, false",
            ),
            "stream_options.include_usage": Honoured(
                value=True,
                other=False,
                beside={"stream": True},
                shows=lambda sent, other: '"usage"' in sent.text and '"usage"' not in other.text,
                wrong=("yes",),
                values="true, false",
            ),
            "stream_options.include_obfuscation": Refused(
                value=True, neutral=(False,), beside={"stream": True}
            ),
            "user": Honoured(value="ann", proof=LEDGER, wrong=(5, "x" * 513), values="512"),
            "safety_identifier": Honoured(
                value="ann", proof=LEDGER, wrong=(5, "x" * 513), values="512"
            ),
            "audio": Refused(value={"voice": "alloy", "format": "wav"}),
            "modalities": Refused(value=["text", "audio"], neutral=(["text"],)),
            "moderation": Refused(value={"model": "omni-moderation-latest"}),
            "prediction": Refused(value={"type": "content", "content": "yes"}),
            "prompt_cache_key": Honoured(
                value="key",
                proof="tests/acceptance/test_tools.py::test_a_cache_key_is_a_hint",
                wrong=(5, []),
                values="a hint: one engine keeps prefixes for all requests of a project",
            ),
            "prompt_cache_options": Refused(value={"mode": "implicit"}),
            "prompt_cache_retention": Refused(value="24h"),
            "reasoning_effort": Refused(value="low"),
            "service_tier": Refused(value="priority", neutral=("auto", "default")),
            **TOOLS,
            "verbosity": Refused(value="low"),
            "web_search_options": Refused(value={}),
        },
    ),
)

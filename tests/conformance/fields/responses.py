"""/responses. Messages are read; items of other kinds are refused as a whole."""

from typing import Any

from openai.types.responses import InputTokenCountParams
from openai.types.responses.input_item_list_params import InputItemListParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.responses.response_retrieve_params import ResponseRetrieveParamsNonStreaming

from conformance.fields.chat import BODY, CERTAIN, FORMS, LEDGER
from conformance.fields.files import after_first, reversed_order, shorter
from conformance.fields.probe import Answer, Endpoint, Honoured, Probe, Refused, echoes

RESPONSE = "/responses/{response_id}"
LOGPROBS = "message.output_text.logprobs"
TESTS = "tests/acceptance/test_responses.py::"
KEPT = "tests/acceptance/test_kept_responses.py::"
SENT_BACK = TESTS + "test_an_answer_can_be_sent_back_as_it_came"
IN_EVERY_FORM = TESTS + "test_messages_in_every_form_are_one_conversation"

QUESTION = {"type": "input_text", "text": "ask 001"}
LIKELY = {"token": "yes", "bytes": [121, 101, 115], "logprob": -0.5}
SAID = {"type": "output_text", "text": "yes", "annotations": []}
TOLD = {**SAID, "logprobs": [{**LIKELY, "top_logprobs": [LIKELY]}]}
CACHE = {"mode": "explicit"}
FLAT_FORM = {"text": {"format": {"type": "json_schema", **BODY}}}
PARSED = FORMS + "test_a_response_is_parsed_and_says_its_format"

# Items that are no messages: what each needs beside its type.
ITEMS: dict[str, dict[str, Any]] = {
    "additional_tools": {"role": "developer", "tools": []},
    "apply_patch_call": {"call_id": "c", "operation": {}, "status": "completed"},
    "apply_patch_call_output": {"call_id": "c", "status": "completed"},
    "code_interpreter_call": {"id": "i", "code": "", "container_id": "c", "outputs": []},
    "compaction": {"encrypted_content": "x"},
    "compaction_trigger": {},
    "computer_call": {"id": "i", "call_id": "c", "status": "completed"},
    "computer_call_output": {"call_id": "c", "output": {"type": "computer_screenshot"}},
    "configuration_update": {},
    "custom_tool_call": {"call_id": "c", "input": "x", "name": "f"},
    "custom_tool_call_output": {"call_id": "c", "output": "x"},
    "file_search_call": {"id": "i", "queries": [], "status": "completed"},
    "image_generation_call": {"id": "i", "result": None, "status": "completed"},
    "item_reference": {"id": "msg_1"},
    "local_shell_call": {"id": "i", "call_id": "c", "action": {}, "status": "completed"},
    "local_shell_call_output": {"id": "i", "output": "x"},
    "mcp_approval_request": {"id": "i", "arguments": "", "name": "f", "server_label": "s"},
    "mcp_approval_response": {"approval_request_id": "i", "approve": True},
    "mcp_call": {"id": "i", "arguments": "", "name": "f", "server_label": "s"},
    "mcp_list_tools": {"id": "i", "server_label": "s", "tools": []},
    "program": {"id": "i", "call_id": "c", "code": "", "fingerprint": "f"},
    "program_output": {"id": "i", "call_id": "c", "result": "", "status": "completed"},
    "reasoning": {"id": "rs_1", "summary": []},
    "shell_call": {"call_id": "c", "action": {}},
    "shell_call_output": {"call_id": "c", "output": []},
    "tool_search_call": {"arguments": {}},
    "tool_search_output": {"tools": []},
    "web_search_call": {"id": "i", "action": {}, "status": "completed"},
}


def input_tokens(answer: Answer) -> int:
    """Return how many tokens the input had, of an answer or a count."""
    return int((answer.value.get("usage") or answer.value)["input_tokens"])


def more_input_tokens(sent: Answer, other: Answer) -> bool:
    """Whether the input was longer."""
    return input_tokens(sent) > input_tokens(other)


def part(answer: Answer) -> Any:
    """Return the first part of a whole answer."""
    return answer.value["output"][0]["content"][0]


def other_text(sent: Answer, other: Answer) -> bool:
    """Whether two answers have other texts."""
    return bool(part(sent)["text"] != part(other)["text"])


def message(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """Return an input of one message, to stand beside a field of it."""
    return {"input": [{"role": role, "content": list(parts)}]}


ASKED = message("user", QUESTION)
ANSWERED = message("assistant", TOLD)
ANSWERED["input"][0] |= {"type": "message", "id": "msg_1", "status": "completed"}
CONTENT = "input[].content[]"

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
GAVE: dict[str, Any] = {"type": "function_call_output", "call_id": "c", "output": "1"}
CALLED = {"input": [CALL, GAVE]}
IN_PARTS = {
    "input": [{**GAVE, "call_id": "{call_id}", "output": [QUESTION]}],
    "previous_response_id": "{called}",
}
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
OUTPUT = "input[].output[]"
TOOL_TESTS = "tests/acceptance/test_tools.py::"
GONE_ON = TOOL_TESTS + "test_a_response_calls_and_is_gone_on_from"
CALLS: dict[str, Probe] = {
    "input[].arguments": Honoured(
        value='{"a": 1}',
        other="{}",
        beside=CALLED,
        shows=more_input_tokens,
        wrong=(5, None),
        values="of a `function_call`",
    ),
    "input[].call_id": Honoured(
        value="c", beside=CALLED, proof=GONE_ON, wrong=("", "x" * 65, 5), values="64 characters"
    ),
    "input[].name": Honoured(
        value="longer",
        other="f",
        beside=CALLED,
        shows=more_input_tokens,
        wrong=("", "a b", 5),
        values="of a `function_call`",
    ),
    "input[].async": Refused(value=True, neutral=(False,), beside=CALLED),
    "input[].namespace": Refused(value="n", neutral=(None,), beside=CALLED),
    "input[].caller": Refused(value={"type": "direct"}, neutral=(None,), beside=CALLED),
    f"{OUTPUT}.type": Honoured(
        value="input_text",
        beside=IN_PARTS,
        proof=GONE_ON,
        wrong=("output_text", 5),
        values="`input_text`; or the output is a text",
    ),
    f"{OUTPUT}.text": Honoured(
        value="1 and more",
        other="1",
        beside=IN_PARTS,
        shows=more_input_tokens,
        wrong=(5, None),
    ),
    f"{OUTPUT}.prompt_cache_breakpoint": Refused(value=CACHE, beside=IN_PARTS),
    f"{OUTPUT}<input_image>": Refused(
        value={"type": "input_image", "image_url": "data:,"}, beside=IN_PARTS
    ),
    f"{OUTPUT}<input_file>": Refused(
        value={"type": "input_file", "file_id": "file-1"}, beside=IN_PARTS
    ),
    "tools": Honoured(
        value=[TOOL],
        shows=more_input_tokens,
        wrong=(
            [{"type": "web_search"}],
            [{"type": "custom", "name": "f"}],
            [{"type": "function"}],
            [TOOL, TOOL],
            [{**TOOL, "parameters": {"type": "array"}}],
            [{**TOOL, "async": True}],
            "f",
        ),
        values="functions; [what is guaranteed](tools.md)",
    ),
    "tool_choice": Honoured(
        value="required",
        other="none",
        beside={"tools": [TOOL]},
        proof="tests/unit/wire/test_tools_wire.py::test_what_a_response_may_call",
        wrong=(
            "maybe",
            {"type": "function", "name": "g"},
            {"type": "web_search_preview"},
            {"type": "custom", "name": "f"},
            5,
        ),
        values="`none`, `auto`, `required`, a function, or `allowed_tools`",
    ),
    "parallel_tool_calls": Honoured(
        value=False,
        beside={"tools": [TOOL]},
        proof="tests/unit/datasets/test_tools.py::test_an_answer_that_has_to_call_does",
        wrong=("yes", 1),
        values="true, false",
    ),
}

# What a response and a count of its tokens are asked with alike.
IN_BOTH: dict[str, Probe] = {
    "input": Honoured(
        value="ask 001 and more",
        other="ask 001",
        shows=more_input_tokens,
        wrong=([], 5, ["x"], [{"type": "nothing"}]),
        values="a text, or messages; with `previous_response_id` it may be left out",
    ),
    **{
        f"input[]<{kind}>": Refused(value={"type": kind, **needed})
        for kind, needed in ITEMS.items()
    },
    "input[].role": Honoured(
        value="developer",
        other="user",
        beside={"input": [{"role": "user", "content": "ask 001"}]},
        shows=more_input_tokens,
        wrong=("tool", "king", None),
        values="`system`, `developer`, `user`, `assistant`",
    ),
    "input[].type": Honoured(
        value="message",
        beside=ASKED,
        shows=lambda sent, other: input_tokens(sent) == input_tokens(other),
        wrong=("letter", 5),
        values="`message`, `function_call`, `function_call_output`",
    ),
    "input[].content": Honoured(
        value="ask 001 and more",
        other="ask 001",
        beside=ASKED,
        shows=more_input_tokens,
        wrong=(None, 5, {}),
        values="text, or text parts",
    ),
    "input[].id": Honoured(
        value="msg_2",
        beside=ANSWERED,
        proof=SENT_BACK,
        wrong=("mine", "msg_" + "x" * 61, 5),
        values="`msg_` and up to 60 characters, each once; kept for the list of input items",
    ),
    "input[].status": Honoured(
        value="incomplete",
        beside=ANSWERED,
        proof=SENT_BACK,
        wrong=("lost", 5),
        values="`in_progress`, `completed`, `incomplete`; kept for the list of input items",
    ),
    "input[].phase": Refused(value="final_answer", neutral=(None,), beside=ANSWERED),
    f"{CONTENT}.type": Honoured(
        value="input_text",
        other="input_text",
        beside=ASKED,
        shows=lambda sent, other: input_tokens(sent) == input_tokens(other),
        wrong=("output_text", "letter", 5),
        values="`input_text`; `output_text` in messages of the assistant",
    ),
    f"{CONTENT}.text": Honoured(
        value="ask 001 and more",
        other="ask 001",
        beside=ASKED,
        shows=more_input_tokens,
        wrong=(5, None),
    ),
    f"{CONTENT}.prompt_cache_breakpoint": Refused(value=CACHE, beside=ASKED),
    f"{CONTENT}.annotations": Refused(
        value=[{"type": "file_path", "file_id": "file-1", "index": 0}],
        neutral=([],),
        beside=ANSWERED,
    ),
    f"{CONTENT}.logprobs": Honoured(
        value=TOLD["logprobs"],
        other=[],
        beside=ANSWERED,
        proof=SENT_BACK,
        wrong=("x", [{"token": "yes"}], [{**LIKELY, "top_logprobs": "x"}]),
        values="as they came with the answer; kept for the list of input items",
    ),
    f"{CONTENT}<input_image>": Refused(
        value={"type": "input_image", "image_url": "data:,", "detail": "auto"}, beside=ASKED
    ),
    f"{CONTENT}<input_file>": Refused(
        value={"type": "input_file", "file_id": "file-1"}, beside=ASKED
    ),
    f"{CONTENT}.refusal": Honoured(
        value="no, never",
        other="no",
        beside=message("assistant", {"type": "refusal", "refusal": "no"}),
        shows=more_input_tokens,
        wrong=(5,),
        values="in messages of the assistant; kept as its text",
    ),
    "instructions": Honoured(
        value="Be brief.", shows=more_input_tokens, wrong=(5, []), values="text"
    ),
    "previous_response_id": Honoured(
        value="{response_id}",
        shows=more_input_tokens,
        wrong=("resp_x", 5),
        values="a response that is kept, with all that it goes on from",
    ),
    "conversation": Refused(value="conv_1", neutral=(None,)),
    **CALLS,
    "reasoning.mode": Refused(value="pro"),
    **{
        f"reasoning.{name}": Refused(value=value, neutral=(None,))
        for name, value in {
            "context": "auto",
            "effort": "low",
            "generate_summary": "auto",
            "summary": "auto",
        }.items()
    },
    "text.format.type": Honoured(
        value="json_schema",
        beside=FLAT_FORM,
        proof=PARSED,
        wrong=("yaml", None, 5),
        values="`text`, `json_object` (the input has to speak of JSON), `json_schema`",
    ),
    "text.format.name": Honoured(
        value="other",
        beside=FLAT_FORM,
        proof=PARSED,
        wrong=("a b", "", 5),
        values="told in the answer, and named in errors; no part of the prompt",
    ),
    "text.format.description": Honoured(
        value="Whether it is.",
        beside=FLAT_FORM,
        proof=PARSED,
        wrong=(5, []),
        values="told in the answer; no part of the prompt",
    ),
    "text.format.schema": Honoured(
        value={**CERTAIN, "properties": {"sure": {"const": False}}},
        beside=FLAT_FORM,
        proof=PARSED,
        wrong=(5, [], "object"),
        values="what llguidance can follow; no part of the prompt",
    ),
    "text.format.strict": Honoured(
        value=False,
        beside=FLAT_FORM,
        proof=FORMS + "test_a_schema_that_cannot_be_followed_is_refused_and_harms_nothing",
        wrong=("yes", 1),
        values="true holds the schema to OpenAI's rules for strict ones; the answer follows the"
        " schema either way",
    ),
    "text.verbosity": Refused(value="low", neutral=("medium", None)),
}
WHOLE = {
    f"{CONTENT}.logprobs": "numbers that are kept as they came",
    "tools": "a function has `name`, `description`, `parameters` and `strict`; a tool of another"
    " type, and a function's other fields, are refused by their names",
    "tool_choice": "a choice of one function, or of `allowed_tools`; of another type it is refused",
}

CREATE: dict[str, Probe] = {
    **IN_BOTH,
    "model": Honoured(
        value="{model}",
        other="{base_model}",
        shows=lambda sent, other: part(sent)["text"] == "yes" != part(other)["text"],
        wrong=("", 5, None),
        values="the base model under its names, a tuned model, a checkpoint",
    ),
    "max_output_tokens": Honoured(
        value=16,
        other=32,
        beside={"model": "{base_model}"},
        shows=lambda sent, other: (
            sent.value["usage"]["output_tokens"] == 16
            and sent.value["status"] == "incomplete"
            and other.value["usage"]["output_tokens"] > 16
        ),
        wrong=(0, 15, "16"),
        values="16 or more",
    ),
    "temperature": Honoured(
        value=2,
        other=0,
        beside={"model": "{base_model}"},
        shows=other_text,
        wrong=(-1, 2.1),
        values="0 to 2",
    ),
    "top_p": Honoured(
        value=0,
        other=1,
        beside={"model": "{base_model}", "temperature": 2},
        shows=other_text,
        wrong=(-1, 1.1),
        values="0 to 1",
    ),
    "include": Honoured(
        value=[LOGPROBS],
        shows=lambda sent, other: len(part(sent)["logprobs"]) > 0 == len(part(other)["logprobs"]),
        wrong=(["reasoning.encrypted_content"], ["nothing"], LOGPROBS),
        values=f"`{LOGPROBS}`",
    ),
    "top_logprobs": Honoured(
        value=2,
        other=0,
        beside={"include": [LOGPROBS]},
        shows=lambda sent, other: (
            (
                len(part(sent)["logprobs"][0]["top_logprobs"]),
                len(part(other)["logprobs"][0]["top_logprobs"]),
            )
            == (2, 0)
        ),
        wrong=(-1, 21, "2"),
        values=f"0 to 20, with `include` of `{LOGPROBS}`",
    ),
    "metadata": Honoured(
        value={"k": "v"},
        shows=echoes("metadata", value={"k": "v"}),
        wrong=({"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, "k"),
        values="16 keys of 64 characters, values of 512",
    ),
    "store": Honoured(
        value=False,
        proof=TESTS + "test_going_on_from_what_is_not_there_is_refused",
        wrong=("yes", 1),
        values="true, false",
    ),
    "stream": Honoured(
        value=True,
        other=False,
        shows=lambda sent, other: (
            (sent.content_type, other.content_type) == ("text/event-stream", "application/json")
        ),
        wrong=("yes", 1),
        values="true, false",
    ),
    "stream_options.include_obfuscation": Refused(
        value=True, neutral=(False,), beside={"stream": True}
    ),
    "truncation": Honoured(
        value="auto",
        other="disabled",
        proof=TESTS + "test_an_input_that_does_not_fit_is_refused_or_cut_from_the_front",
        wrong=("some", 5),
        values="`auto`, `disabled`",
    ),
    "user": Honoured(value="ann", proof=LEDGER, wrong=(5, "x" * 513), values="512"),
    "safety_identifier": Honoured(value="ann", proof=LEDGER, wrong=(5, "x" * 513), values="512"),
    "access_programs": Refused(value={"cyber": "standard"}, neutral=(None,)),
    "background": Refused(value=True, neutral=(False, None)),
    "background_options": Refused(value={"completion_window": "2h"}, neutral=(None,)),
    "context_management": Refused(value=[{"type": "compaction"}], neutral=(None,)),
    "image": Refused(value={"context_compression": "auto"}, neutral=(None,)),
    "max_tool_calls": Refused(value=1, neutral=(None,)),
    "moderation": Refused(value={"model": "omni-moderation-latest"}, neutral=(None,)),
    "prompt": Refused(value={"id": "pmpt_1"}, neutral=(None,)),
    "prompt_cache_key": Honoured(
        value="key",
        shows=echoes("prompt_cache_key", value="key"),
        wrong=(5, []),
        values="a hint: one engine keeps prefixes for all requests of a project",
    ),
    "prompt_cache_options": Refused(value={"mode": "implicit"}),
    "prompt_cache_retention": Refused(value="24h", neutral=(None,)),
    "service_tier": Refused(value="priority", neutral=("auto", "default", None)),
}

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/responses",
        params=ResponseCreateParamsNonStreaming,
        base={"model": "{model}", "input": "ask 001", "temperature": 0, "max_output_tokens": 16},
        fields=CREATE,
        whole=WHOLE,
    ),
    Endpoint(
        method="POST",
        path="/responses/input_tokens",
        params=InputTokenCountParams,
        base={"model": "{model}", "input": "ask 001"},
        fields={
            **IN_BOTH,
            "model": Honoured(
                value="{model}",
                other="{base_model}",
                shows=lambda sent, other: input_tokens(sent) == input_tokens(other) > 0,
                wrong=("", 5, None),
                values="the base model under its names, a tuned model, a checkpoint",
            ),
            "personality": Refused(value="friendly"),
            "truncation": Refused(value="auto", neutral=("disabled",)),
        },
        whole=WHOLE,
    ),
    Endpoint(
        method="GET",
        path=RESPONSE,
        params=ResponseRetrieveParamsNonStreaming,
        encoding="query",
        fields={
            "include": Refused(value=[LOGPROBS]),
            "include_obfuscation": Refused(value="true", neutral=("false",)),
            "starting_after": Refused(value=0),
            "stream": Refused(value="true", neutral=("false",)),
        },
    ),
    Endpoint(method="DELETE", path=RESPONSE),
    Endpoint(
        method="POST",
        path=RESPONSE + "/cancel",
        note="Only a response made with `background` can be cancelled, and there are none: a 400.",
    ),
    Endpoint(
        method="GET",
        path=RESPONSE + "/input_items",
        params=InputItemListParams,
        encoding="query",
        fields={
            "after": Honoured(
                value="{newest_item}", shows=after_first, wrong=("msg_x",), values="an item's id"
            ),
            "limit": Honoured(value=1, shows=shorter, wrong=(0, 101, "few"), values="1 to 100"),
            "order": Honoured(
                value="asc",
                other="desc",
                shows=reversed_order,
                wrong=("down",),
                values="`asc`, `desc`",
            ),
            "include": Refused(value=[LOGPROBS]),
        },
    ),
)

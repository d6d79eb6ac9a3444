"""What the API takes and refuses, in OpenAI's words and envelope."""

import json
import re
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from support.server import (
    BASE,
    CONTEXT,
    EMBEDDING,
    Server,
    Tuned,
    ask,
    chat_line,
    chat_lines,
    finished,
    method,
    texts,
    upload,
)

CHAT, FILES, JOBS = "/v1/chat/completions", "/v1/files", "/v1/fine_tuning/jobs"
HI: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def http(server: Server) -> httpx2.Client:
    return server.http()


def error_of(response: httpx2.Response, status: int) -> dict[str, Any]:
    """Return the error of an answer that must be one, in the envelope."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"].startswith("req_")
    body = response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    return dict(body["error"])


# ---- errors


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "message", "param", "code"),
    [
        ("POST", "/v1/nothing", b"", 404, r"Invalid URL \(POST /v1/nothing\)", None, None),
        ("GET", "/v1/engines", b"", 404, r"Invalid URL \(GET /v1/engines\)", None, None),
        ("PUT", CHAT, b"", 405, "Not allowed to PUT on /v1/chat/completions", None, None),
        ("POST", CHAT, b"{", 400, "could not parse the JSON body", None, None),
        ("POST", CHAT, b"[]", 400, "JSON object", None, None),
        ("POST", CHAT, b'{"model": NaN}', 400, "could not parse the JSON body", None, None),
        (
            "POST",
            CHAT,
            b'{"model": "tiny"}',
            400,
            "Missing required parameter: 'messages'",
            "messages",
            "missing_required_parameter",
        ),
        (
            "POST",
            CHAT,
            b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "tempo": 1}',
            400,
            "Unrecognized request argument supplied: tempo",
            "tempo",
            "unknown_parameter",
        ),
        (
            "POST",
            CHAT,
            b'{"model": "tiny", "messages": []}',
            400,
            "Invalid value for 'messages'",
            "messages",
            "invalid_value",
        ),
        (
            "POST",
            CHAT,
            b'{"model": "tiny", "messages": [{"role": "user", "content": 5}]}',
            400,
            "Invalid value for 'messages.0.content'",
            "messages.0.content",
            "invalid_value",
        ),
        (
            "POST",
            JOBS,
            b'{"model": "tiny"}',
            400,
            "Missing required parameter: 'training_file'",
            "training_file",
            "missing_required_parameter",
        ),
        *(
            (
                "POST",
                "/v1/webhook_endpoints",
                json.dumps({"name": "x", "url": url, "event_types": ["batch.failed"]}).encode(),
                400,
                "^Invalid 'url': ",
                "url",
                "url_not_allowed",
            )
            for url in ("http://93.184.215.14/", "https://127.0.0.1/", "https://localhost/")
        ),
        ("GET", JOBS + "?limit=0", b"", 400, "limit", "limit", "invalid_value"),
        ("GET", FILES + "?order=up", b"", 400, "order", "order", "invalid_value"),
        ("GET", FILES + "?after=file-x", b"", 400, "file-x", "after", None),
        *(
            (
                verb,
                f"{path}?{query}=1",
                b"{}",
                400,
                f"^Unknown query parameter: '{re.escape(query)}'.$",
                query,
                "unknown_parameter",
            )
            for verb, path, query in (
                ("GET", FILES, "limits"),
                ("GET", FILES, "limit[]"),
                ("GET", FILES, "metadata[a]"),
                ("GET", JOBS, "after[a]"),
                ("GET", "/v1/models/nobody", "include[]"),
                ("POST", CHAT, "api-version"),
            )
        ),
        *(
            (
                "POST",
                f"/{endpoint}",
                json.dumps({"model": name, **body}).encode(),
                404,
                f"^This is not {kind} model and thus not supported in the {endpoint} endpoint."
                f" Did you mean to use {instead}\\?$",
                "model",
                None,
            )
            for endpoint, body, kind in (
                ("v1/chat/completions", {"messages": HI}, "a chat"),
                ("v1/completions", {"prompt": "hi"}, "a completion"),
                ("v1/responses", {"input": "hi"}, "a chat"),
                ("v1/responses/input_tokens", {"input": "hi"}, "a chat"),
            )
            for name, instead in (
                (EMBEDDING, "v1/embeddings"),
                ("omni-moderation-latest", "v1/moderations"),
            )
        ),
        ("GET", FILES + "?limit=1&limit=2", b"", 400, "'limit' 2 times", "limit", "invalid_value"),
        (
            "GET",
            JOBS + "?metadata=null&metadata=",
            b"",
            400,
            "2 times",
            "metadata",
            "invalid_value",
        ),
        ("GET", FILES + "/file-x", b"", 404, "^No such File object: file-x$", "id", None),
        ("DELETE", FILES + "/file-x", b"", 404, "^No such File object: file-x$", "id", None),
        ("GET", FILES + "/file-x/content", b"", 404, "^No such File object: file-x$", "id", None),
        *(
            (
                verb,
                f"{JOBS}/ftjob-x{end}",
                b"",
                404,
                "^Could not find fine tune: ftjob-x$",
                "fine_tune_id",
                "fine_tune_not_found",
            )
            for verb, end in (
                ("GET", ""),
                ("GET", "/events"),
                ("GET", "/checkpoints"),
                ("POST", "/cancel"),
            )
        ),
        *(
            (
                verb,
                path,
                body,
                404,
                "^The model `nobody` does not exist or you do not have access to it.$",
                None,
                "model_not_found",
            )
            for verb, path, body in (
                ("GET", "/v1/models/nobody", b""),
                ("DELETE", "/v1/models/nobody", b""),
                ("POST", CHAT, json.dumps({"model": "nobody", "messages": HI}).encode()),
            )
        ),
    ],
)
def test_an_error_has_its_status_and_all_four_keys(
    http: httpx2.Client,
    verb: str,
    path: str,
    body: bytes,
    status: int,
    message: str,
    param: str | None,
    code: str | None,
) -> None:
    error = error_of(http.request(verb, path, content=body), status)
    assert re.search(message, error["message"]), error
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, None),
        ({"authorization": "Bearer sk-tunery-wrong"}, "invalid_api_key"),
        ({"authorization": "Basic sk-tunery-wrong"}, None),
        ({"authorization": "Bearer k\u00e9y"}, "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", [FILES, JOBS, "/v1/models", "/v1/models/tiny", FILES + "/file-x"])
def test_without_a_good_key_every_route_answers_401(
    server: Server, path: str, header: dict[str, str], code: str | None
) -> None:
    headers = [(name.encode(), value.encode()) for name, value in header.items()]
    response = httpx2.get(server.url + path, headers=headers, trust_env=False)
    error = error_of(response, 401)
    assert error["code"] == code
    assert "sk-tunery-wrong" not in error["message"]


def test_an_admin_key_does_not_open_a_projects_routes(server: Server) -> None:
    http = server.http(server.env["OPENAI_ADMIN_KEY"])
    for path in (FILES, JOBS, "/v1/models"):
        assert error_of(http.get(path), 403)["code"] == "insufficient_permissions"


def test_a_key_of_another_project_than_the_header_names_is_refused(server: Server) -> None:
    for name in ("organization", "project"):
        response = server.http().get("/v1/models", headers={f"openai-{name}": "other"})
        assert error_of(response, 401)["code"] == f"mismatched_{name}"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/nothing"])
def test_every_answer_carries_openais_headers(http: httpx2.Client, path: str) -> None:
    first, second = http.get(path), http.get(path)
    assert first.headers["x-request-id"].startswith("req_")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["openai-version"] == "2020-10-01"
    assert int(first.headers["openai-processing-ms"]) >= 0


def test_an_authenticated_answer_names_its_organization(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=BASE, messages=HI, max_tokens=1)
    assert raw.headers["openai-organization"] == "personal"
    assert raw.request_id == raw.headers["x-request-id"]


# ---- lists


def test_lists_are_filtered_ordered_and_paged(server: Server) -> None:
    client = server.client(server.new_key("--new-project", "lists")[1])
    ids = [
        client.files.create(file=(f"{n}.jsonl", chat_lines(1)), purpose="fine-tune").id
        for n in range(3)
    ]
    notes = client.files.create(file=("notes.txt", b"any text"), purpose="user_data").id
    assert [f.id for f in client.files.list()] == [notes, *ids[::-1]]
    assert [f.id for f in client.files.list(order="asc", purpose="fine-tune")] == ids
    page = client.files.list(limit=2)
    assert ([f.id for f in page.data], page.has_more) == ([notes, ids[2]], True)
    rest = client.files.list(limit=2, after=ids[2])
    assert ([f.id for f in rest.data], rest.has_more) == ([ids[1], ids[0]], False)
    assert [f.id for f in client.files.list(limit=1)] == [notes, *ids[::-1]]  # the SDK pages

    jobs = [client.fine_tuning.jobs.create(model=BASE, training_file=ids[0]).id for _ in range(3)]
    first = client.fine_tuning.jobs.list(limit=2)
    assert ([j.id for j in first.data], first.has_more) == ([jobs[2], jobs[1]], True)
    assert [j.id for j in client.fine_tuning.jobs.list(limit=1)] == jobs[::-1]


# ---- chat


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service_tier", "flex"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "low"),
        ("verbosity", "low"),
        ("web_search_options", {}),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused_by_name(
    http: httpx2.Client, field: str, value: object
) -> None:
    body = {"model": BASE, "messages": HI, "max_tokens": 1, field: value}
    error = error_of(http.post(CHAT, json=body), 400)
    assert (error["param"], error["code"]) == (field, "unsupported_parameter")
    assert f"'{field}'" in error["message"]


def test_values_that_ask_for_nothing_are_accepted(http: httpx2.Client) -> None:
    neutral = {
        "logprobs": False,
        "top_logprobs": None,
        "n": 1,
        "tools": [],
        "response_format": {"type": "text"},
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "store": False,
        "metadata": None,
        "service_tier": "auto",
        "modalities": ["text"],
        "stream": False,
        "stop": None,
        "user": "u-1",
    }
    response = http.post(CHAT, json={"model": BASE, "messages": HI, "max_tokens": 1, **neutral})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{**HI[0], "name": "a b"}]}, "messages.0.name"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"function_call": "auto"}, "function_call"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(
    http: httpx2.Client, fields: dict[str, Any], param: str
) -> None:
    error = error_of(http.post(CHAT, json={"model": BASE, "messages": HI, **fields}), 400)
    assert error["param"] == param


FOUR = ["a", "b", "c", "d"]
CHATTED: dict[str, Any] = {"model": BASE, "messages": HI}
EMBEDDED: dict[str, Any] = {"model": EMBEDDING}
COMPLETED: dict[str, Any] = {"model": BASE, "prompt": "hi"}


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        (CHAT, {**CHATTED, "n": 10**30}, "n", "less than or equal to 128, got 1e+30"),
        (CHAT, {**CHATTED, "n": 0}, "n", "greater than or equal to 1, got 0"),
        (CHAT, {**CHATTED, "n": "2"}, "n", "a valid integer, got '2'"),
        (CHAT, {**CHATTED, "seed": 10**30}, "seed", f"equal to {2**63 - 1}, got 1e+30"),
        (CHAT, {**CHATTED, "seed": -(10**30)}, "seed", f"equal to {-(2**63)}, got -1e+30"),
        (CHAT, {**CHATTED, "seed": 2**63}, "seed", f"equal to {2**63 - 1}, got {2**63}"),
        (CHAT, {**CHATTED, "seed": 0.5}, "seed", "a valid integer, got 0.5"),
        (CHAT, {**CHATTED, "stop": [*FOUR, "e"]}, "stop", "at most 4 items, not 5"),
        (CHAT, {**CHATTED, "stream": None, "store": 1}, "store", "a valid boolean, got 1"),
        (CHAT, {**CHATTED, "user": "x" * 513}, "user", "512 characters, got a string of 513 char"),
        (
            CHAT,
            {**CHATTED, "tool_choice": "maybe"},
            "tool_choice",
            "Input should be 'none', 'auto' or 'required' or an object, got 'maybe'",
        ),
        (
            CHAT,
            {**CHATTED, "response_format": [1]},
            "response_format",
            "an object, got an array of 1",
        ),
        (
            CHAT,
            {**CHATTED, "response_format": {"type": "xml"}},
            "response_format.type",
            "'text' or 'json_object' or 'json_schema', got 'xml'",
        ),
        ("/v1/completions", {**COMPLETED, "best_of": 10**30}, "best_of", "to 20, got 1e+30"),
        (
            "/v1/completions",
            {**COMPLETED, "prompt": ["a"] * 2049},
            "prompt",
            "2048 items, not 2049",
        ),
        ("/v1/embeddings", {**EMBEDDED, "input": ["a"] * 2049}, "input", "2048 items, not 2049"),
        ("/v1/embeddings", {**EMBEDDED, "input": [[1]] * 2049}, "input", "2048 items, not 2049"),
        (
            "/v1/embeddings",
            {**EMBEDDED, "input": ["a", None]},
            "input.1",
            "a valid string, got null",
        ),
        ("/v1/embeddings", {**EMBEDDED, "input": {}}, "input", "string or an array, got an object"),
        (
            "/v1/embeddings",
            {**EMBEDDED, "input": "a", "dimensions": 10**30},
            "dimensions",
            f"less than or equal to {2**31 - 1}, got 1e+30",
        ),
    ],
)
def test_an_error_says_what_was_got_and_what_is_needed(
    http: httpx2.Client, path: str, body: dict[str, Any], param: str, says: str
) -> None:
    error = error_of(http.post(path, json=body), 400)
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert error["message"].startswith(f"Invalid value for '{param}': ")
    assert says in error["message"]


def test_a_prompt_and_answer_that_do_not_fit_are_refused(client: OpenAI) -> None:
    # <|im_start|>user\n is 6 tokens, <|im_end|>\n 2, <|im_start|>assistant\n 11: 19 in all.
    fits: list[Any] = [{"role": "user", "content": "x" * (CONTEXT - 19 - 1)}]
    assert client.chat.completions.create(model=BASE, messages=fits).usage is not None
    long: list[Any] = [{"role": "user", "content": "x" * (CONTEXT - 19)}]
    for messages, limit in ((long, None), (fits, 2)):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=BASE, messages=messages, max_tokens=limit)
        error = caught.value
        assert (error.code, error.param) == ("context_length_exceeded", "messages")
        assert f"maximum context length is {CONTEXT} tokens" in error.message
        assert f"requested {CONTEXT + 1} tokens" in error.message


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_ends_at_its_limit(client: OpenAI, field: str) -> None:
    limits: dict[str, Any] = {field: 3}
    answer = client.chat.completions.create(model=BASE, messages=HI, temperature=0, **limits)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_an_answer_ends_before_its_stop_string_whole_and_streamed(
    client: OpenAI, tuned: Tuned
) -> None:
    request: dict[str, Any] = {
        "model": tuned.model,
        "messages": [{"role": "user", "content": "ask 001"}],
        "temperature": 0,
        "max_tokens": 8,
    }
    for stop, text in (("es", "y"), (["zz", "s"], "ye"), (["never"], "yes"), ("y", "")):
        whole = client.chat.completions.create(**request, stop=stop)
        assert whole.choices[0].message.content == text
        assert whole.choices[0].finish_reason == "stop"
        stream = client.chat.completions.create(**request, stop=stop, stream=True)
        assert texts(stream) == text


def test_a_seed_repeats_an_answer_and_another_gives_another(client: OpenAI) -> None:
    def answer(seed: int) -> str:
        return texts(
            client.chat.completions.create(
                model=BASE, messages=HI, seed=seed, max_tokens=40, stream=True
            )
        )

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(1, 5)}) > 1


def test_temperature_zero_and_top_p_zero_give_one_answer(client: OpenAI) -> None:
    greedy = ask(client, BASE, "hi", max_tokens=20)
    assert ask(client, BASE, "hi", max_tokens=20) == greedy
    for seed in (1, 2):
        answer = client.chat.completions.create(
            model=BASE, messages=HI, top_p=0, seed=seed, max_tokens=20
        )
        assert answer.choices[0].message.content == greedy


def test_text_parts_and_the_developer_role_are_what_they_spell(client: OpenAI) -> None:
    def prompt_tokens(messages: list[Any]) -> int:
        answer = client.chat.completions.create(model=BASE, messages=messages, max_tokens=1)
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    parts = [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]
    # "ab\nc" is 4 bytes; a developer's turn is rendered as a system's: 1 + 7 + 1 + 2.
    assert prompt_tokens([{"role": "user", "content": parts}]) == 19 + 4
    assert prompt_tokens([{"role": "developer", "content": "x"}, *HI]) == 11 + 19 + 2
    # What a user writes never becomes a control token: 10 bytes are 10 tokens.
    assert prompt_tokens([{"role": "user", "content": "<|im_end|>"}]) == 19 + 10


# ---- uploads


@pytest.mark.parametrize(
    ("name", "data", "purpose", "message", "param"),
    [
        (
            "a.jsonl",
            chat_lines(2) + b"\nnot json\n",
            "fine-tune",
            r"Expected file to have JSONL format, where every line is a JSON dictionary\."
            r' Line 3 is not a dictionary \(HINT: line starts with: "not json"\)\.',
            None,
        ),
        ("a.jsonl", b"[1, 2]\n", "fine-tune", "Line 1 is not a dictionary", None),
        ("a.jsonl", b"\n \n", "fine-tune", "every line is blank", None),
        ("a.jsonl", b"", "fine-tune", "is empty", "file"),
        ("a.jsonl", b"{}\n", "training", "'training' is not one of", "purpose"),
        ("a.csv", b"step\n", "fine-tune-results", "'fine-tune-results' is not one of", "purpose"),
    ],
)
def test_an_upload_that_is_no_good_is_refused_and_not_kept(
    http: httpx2.Client, name: str, data: bytes, purpose: str, message: str, param: str | None
) -> None:
    before = http.get(FILES).json()["data"]
    response = http.post(FILES, data={"purpose": purpose}, files={"file": (name, data)})
    error = error_of(response, 400)
    assert re.search(message, error["message"]), error
    assert error["param"] == param
    assert http.get(FILES).json()["data"] == before


@pytest.mark.parametrize(
    ("form", "files", "param"),
    [
        ({"purpose": "fine-tune"}, {}, None),
        ({}, {"file": ("a.jsonl", b"{}\n")}, "purpose"),
        ({"purpose": "fine-tune", "a": "b"}, {"file": ("a.jsonl", b"{}\n")}, "a"),
    ],
)
def test_an_upload_without_its_fields_or_with_unknown_ones_is_refused(
    http: httpx2.Client, form: dict[str, str], files: dict[str, Any], param: str | None
) -> None:
    error = error_of(http.post(FILES, data=form, files=files), 400)
    assert error["param"] == param


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\passwd"])
def test_a_files_name_is_only_its_last_part(client: OpenAI, name: str) -> None:
    file = client.files.create(file=(name, b"text"), purpose="user_data")
    assert file.filename == "passwd"
    assert client.files.content(file.id).read() == b"text"


def test_a_name_that_is_no_name_stays_a_label(client: OpenAI) -> None:
    file = client.files.create(file=("..", b"text"), purpose="user_data")
    assert file.filename == ".."
    assert client.files.content(file.id).read() == b"text"
    assert client.files.delete(file.id).deleted


# ---- jobs


def refused_job(client: OpenAI, **fields: Any) -> openai.BadRequestError:
    """Return the error of a job that is not accepted."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(**{"model": BASE, "training_file": "file-x", **fields})
    return caught.value


def test_a_model_that_cannot_be_tuned_is_refused(client: OpenAI, tuned: Tuned) -> None:
    error = refused_job(client, model="gpt-4", training_file=tuned.training.id)
    assert error.code == "model_not_available"
    assert "Model gpt-4 is not available for fine-tuning or does not exist." in error.message


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
def test_a_job_on_a_file_that_is_not_there_or_for_something_else_is_refused(
    client: OpenAI, tuned: Tuned, field: str
) -> None:
    other = client.files.create(file=("a.txt", b"text"), purpose="user_data").id
    for file in ("file-x", other, tuned.job.result_files[0]):
        error = refused_job(client, **{"training_file": tuned.training.id, field: file})
        assert (error.param, error.code) == (field, "invalid_file")
        assert file in error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "a b"}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo"),
        ({"method": {"type": "magic"}}, "method.type"),
        ({"method": method(n_epochs=0)}, "method.supervised.hyperparameters.n_epochs"),
        ({"method": method(n_epochs="many")}, "method.supervised.hyperparameters.n_epochs"),
        ({"method": method(beta=1)}, "method.supervised.hyperparameters.beta"),
        ({"integrations": [{"type": "other"}]}, "integrations.0.type"),
        ({"metadata": {"k" * 65: "v"}}, None),
    ],
)
def test_a_job_with_a_value_that_cannot_be_honoured_is_refused_by_name(
    client: OpenAI, tuned: Tuned, fields: dict[str, Any], param: str | None
) -> None:
    error = refused_job(client, training_file=tuned.training.id, **fields)
    assert param is None or error.param == param


def test_bad_lines_are_named_and_a_job_on_them_fails_before_training(client: OpenAI) -> None:
    lines = [chat_line(f"q{n}", "a") for n in range(12)]
    lines[3] = json.dumps({"prompt": "q", "completion": "a"})
    lines[8] = json.dumps({"messages": [{"role": "user", "content": "q"}]})
    file = upload(client, "\n".join(lines).encode())
    assert file.status == "error"
    details = file.status_details or ""
    assert re.search(r"line 4: .*line 9: ", details)
    assert details.count("line ") == 2
    job = finished(client, client.fine_tuning.jobs.create(model=BASE, training_file=file.id).id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert "line 4: " in job.error.message
    assert "2 of 12 lines" in job.error.message
    assert (job.fine_tuned_model, job.trained_tokens) == (None, None)
    newest = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    assert (newest.level, newest.message) == ("error", job.error.message)
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.cancel(job.id)


def test_too_few_examples_fail_the_job_in_openais_words(client: OpenAI) -> None:
    file = upload(client, chat_lines(7))
    assert file.status == "processed"
    job = finished(client, client.fine_tuning.jobs.create(model=BASE, training_file=file.id).id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_n_examples", "training_file")
    assert job.error.message == (
        "Training file has 7 example(s), but must have at least 10 examples"
    )

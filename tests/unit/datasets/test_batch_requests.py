"""What a batch's input file must be: each bad line is named, and good ones become questions."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from support.rows import batch_line, batch_lines, chunks
from tunery.datasets.batch_requests import Question, check_batch_file, questions
from tunery.datasets.reader import MAX_LINE_BYTES
from tunery.domain.batches import MAX_LINES, MAX_LISTED_PROBLEMS

URL = "/v1/chat/completions"


def check(*lines: bytes) -> list[tuple[int | None, str, str | None]]:
    """Return line, code and field of every problem."""
    found = check_batch_file([b"".join(lines)], URL).problems
    assert all(problem.message for problem in found)
    return [(problem.line, problem.code, problem.param) for problem in found]


def without(key: str) -> bytes:
    value = orjson.loads(batch_line(1))
    del value[key]
    return orjson.dumps(value) + b"\n"


def test_a_good_file_is_counted_and_its_model_known() -> None:
    found = check_batch_file([batch_lines(3)], URL)
    assert (found.total, found.model, found.problems) == (3, "gpt-tiny", ())


MISSING = "missing_required_parameter"
BAD_LINES: dict[str, tuple[bytes, str, str | None]] = {
    "no JSON": (b"{\n", "invalid_json_line", None),
    "a list": (b"[]\n", "invalid_json_line", None),
    "too long": (b'"' + b"x" * MAX_LINE_BYTES + b'"\n', "invalid_json_line", None),
    "not UTF-8": (b'{"custom_id": "\xff"}\n', "invalid_json_line", None),
    "no custom_id": (without("custom_id"), MISSING, "custom_id"),
    "null custom_id": (batch_line(1, custom_id=None), MISSING, "custom_id"),
    "empty custom_id": (batch_line(1, custom_id=""), "invalid_value", "custom_id"),
    "numeric custom_id": (batch_line(1, custom_id=7), "invalid_value", "custom_id"),
    "no method": (without("method"), MISSING, "method"),
    "GET": (batch_line(1, method="GET"), "invalid_method", "method"),
    "post": (batch_line(1, method="post"), "invalid_method", "method"),
    "no url": (without("url"), MISSING, "url"),
    "another url": (batch_line(1, url="/v1/embeddings"), "invalid_url", "url"),
    "a deep url": (batch_line(1, url=[[[]]]), "invalid_url", "url"),
    "no body": (without("body"), MISSING, "body"),
    "a text as body": (batch_line(1, body="hi"), "invalid_value", "body"),
    "no model": (batch_line(1, body={"n": 1}), MISSING, "body.model"),
    "numeric model": (batch_line(1, body={"model": 1}), "invalid_value", "body.model"),
    "empty model": (batch_line(1, body={"model": ""}), "invalid_value", "body.model"),
    "an extra key": (batch_line(1, priority=1), "unknown_parameter", "priority"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_and_the_others_are_not(name: str) -> None:
    line, code, param = BAD_LINES[name]
    assert check(batch_line(2), b"\n", line, batch_line(3)) == [(3, code, param)]


def test_a_custom_id_stands_once_and_the_first_line_is_told() -> None:
    found = check_batch_file([batch_line(1), batch_line(2), batch_line(1)], URL)
    assert [(p.line, p.code) for p in found.problems] == [(3, "duplicate_custom_id")]
    assert "line 1" in found.problems[0].message


def test_all_lines_name_the_model_of_the_first_good_one() -> None:
    other: dict[str, Any] = {"model": "another"}
    assert check(batch_line(1), batch_line(2, body=other), batch_line(3)) == [
        (2, "mismatched_model", "body.model")
    ]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_requests_is_empty(data: bytes) -> None:
    assert check(data) == [(None, "empty_file", None)]


def test_a_file_may_have_the_most_lines_and_not_one_more() -> None:
    most = batch_lines(MAX_LINES)
    found = check_batch_file(chunks(most, 1 << 20), URL)
    assert (found.total, found.problems) == (MAX_LINES, ())

    def endless() -> Any:
        yield most
        yield batch_line(0)
        raise AssertionError("read further than it had to be")

    found = check_batch_file(endless(), URL)
    assert [(p.line, p.code) for p in found.problems] == [(MAX_LINES + 1, "too_many_tasks")]


def test_the_list_of_bad_lines_is_capped() -> None:
    found = check(*[b"{\n"] * (MAX_LISTED_PROBLEMS + 9))
    assert [line for line, _, _ in found] == list(range(1, MAX_LISTED_PROBLEMS + 1))


@untimed
@given(st.sets(st.integers(1, 9)), st.integers(1, 200))
def test_the_lines_that_are_not_answered_are_asked_in_order(answered: set[int], size: int) -> None:
    asked = list(questions(chunks(b"\n" + batch_lines(8), size), answered))
    assert asked == [
        Question(n + 1, f"request-{n}", {"model": "gpt-tiny", "number": n})
        for n in range(1, 9)
        if n + 1 not in answered
    ]


@untimed
@given(st.binary(max_size=200))
def test_any_bytes_are_either_requests_or_refused(data: bytes) -> None:
    found = check_batch_file([data], URL)
    assert found.problems  # no random bytes make a request

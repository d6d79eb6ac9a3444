"""/files."""

from typing import TypedDict

from openai.types import FileCreateParams, FileListParams

from conformance.fields.probe import ABSENT, Answer, Endpoint, Honoured, echoes


class FileCheckParams(TypedDict, total=False):
    """The fields of our own endpoint."""

    model: str
    validation_file: str


LINE = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


def page_ids(answer: Answer) -> list[str]:
    """Return the ids of a page."""
    return [str(one["id"]) for one in answer.value["data"]]


def shorter(sent: Answer, other: Answer) -> bool:
    """Whether a page of one is one item of more."""
    return len(sent.value["data"]) == 1 < len(other.value["data"])


def after_first(sent: Answer, other: Answer) -> bool:
    """Whether a page goes on behind the newest item."""
    rest = page_ids(other)[1:]
    return len(rest) > 0 and page_ids(sent)[: len(rest)] == rest


def reversed_order(sent: Answer, other: Answer) -> bool:
    """Whether the items come the other way round."""
    return page_ids(sent) == page_ids(other)[::-1] != page_ids(other)


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/files",
        params=FileCreateParams,
        encoding="form",
        base={"file": ("a.jsonl", LINE), "purpose": "fine-tune"},
        fields={
            "file": Honoured(
                value=("b.jsonl", LINE),
                other=("a.jsonl", LINE + b"\n" + LINE),
                shows=lambda sent, other: (
                    (sent.value["filename"], sent.value["bytes"]) == ("b.jsonl", len(LINE))
                    and other.value["bytes"] == 2 * len(LINE) + 1
                ),
                wrong=("text",),
                values="up to the size that the server is set to; JSONL for fine-tune and batch",
            ),
            "purpose": Honoured(
                value="user_data",
                other="fine-tune",
                shows=echoes("purpose", value="user_data"),
                wrong=("pleasure", "fine-tune-results"),
                values="`assistants`, `batch`, `fine-tune`, `vision`, `user_data`, `evals`",
            ),
            "expires_after.anchor": Honoured(
                value="created_at",
                beside={"expires_after.seconds": 3600},
                proof="tests/acceptance/test_uploads.py::"
                "test_a_file_expires_as_asked_and_then_answers_as_an_unknown_one",
                wrong=("last_active_at",),
                values="`created_at`",
            ),
            "expires_after.seconds": Honoured(
                value=3600,
                other=7200,
                beside={"expires_after.anchor": "created_at"},
                shows=lambda sent, other: (
                    sent.value["expires_at"] - sent.value["created_at"] == 3600
                    and other.value["expires_at"] - other.value["created_at"] == 7200
                ),
                wrong=(3599, 2_592_001, "soon", 3600.5),
                values="3600 to 2592000",
            ),
        },
    ),
    Endpoint(
        method="GET",
        path="/files",
        params=FileListParams,
        encoding="query",
        fields={
            "after": Honoured(
                value="{newest_file}", shows=after_first, wrong=("file-x",), values="a file's id"
            ),
            "limit": Honoured(
                value=1, shows=shorter, wrong=(0, 10_001, "few"), values="1 to 10000"
            ),
            "order": Honoured(
                value="asc",
                other="desc",
                shows=reversed_order,
                wrong=("up",),
                values="`asc`, `desc`",
            ),
            "purpose": Honoured(
                value="user_data",
                other=ABSENT,
                shows=lambda sent, other: (
                    {one["purpose"] for one in sent.value["data"]} == {"user_data"}
                    and page_ids(sent) != page_ids(other)
                ),
                wrong=("pleasure",),
                values="a purpose that a file can have",
            ),
        },
    ),
    Endpoint(method="GET", path="/files/{file_id}"),
    Endpoint(method="GET", path="/files/{file_id}/content"),
    Endpoint(method="DELETE", path="/files/{file_id}"),
    Endpoint(
        method="POST",
        path="/files/{file_id}/check",
        params=FileCheckParams,
        fields={
            "model": Honoured(
                value="gpt-3.5-turbo",
                shows=lambda sent, other: (
                    sent.value["sides"][0]["tokens"] > 0
                    and other.value["sides"][0]["tokens"] is None
                ),
                wrong=("", 5),
                values="a name of a base, or of a tuned model of the project",
            ),
            "validation_file": Honoured(
                value="{file_id}",
                shows=lambda sent, other: (
                    [len(one.value["files"]) for one in (sent, other)] == [2, 1]
                    and "leaked_lines" in [one["kind"] for one in sent.value["findings"]]
                ),
                wrong=("", 5),
                values="a file of purpose fine-tune",
            ),
        },
        note="An endpoint of ours: [what it answers](extensions.md#the-check-of-a-file).",
    ),
)

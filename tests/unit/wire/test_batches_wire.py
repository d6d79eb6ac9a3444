"""Batches as OpenAI writes them: every key is always there."""

from typing import Any

from openai.types import Batch

from support.rows import a_batch
from tunery.domain.batches import BatchProblem, BatchStatus
from tunery.wire.batches import to_wire_batch

NEVER = dict.fromkeys(
    [f"{s}_at" for s in ("in_progress", "finalizing", "completed", "expired")]
    + ["failed_at", "cancelling_at", "cancelled_at"]
)


def test_a_new_batch_has_every_key_and_knows_nothing_yet() -> None:
    assert to_wire_batch(a_batch()).model_dump() == {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": None,
        "errors": None,
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": 1_700_000_000,
        "expires_at": 4_000_000_000,
        **NEVER,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
        "metadata": None,
    }


def test_what_has_become_of_a_batch_is_written_where_openais_client_reads_it() -> None:
    stamps: dict[str, Any] = {name: number for number, name in enumerate(NEVER, 1)}
    written = to_wire_batch(
        a_batch(
            status=BatchStatus.FAILED,
            errors=(BatchProblem("invalid_url", "Bad.", 3, "url"), BatchProblem("c", "m")),
            model="m",
            output_file_id="file-2",
            error_file_id="file-3",
            total=9,
            completed=7,
            failed=2,
            input_tokens=30,
            output_tokens=12,
            metadata={"k": "v"},
            **stamps,
        )
    ).model_dump()
    read = Batch.model_validate(written)
    assert {name: getattr(read, name) for name in stamps} == stamps
    assert written["errors"] == {
        "object": "list",
        "data": [
            {"code": "invalid_url", "line": 3, "message": "Bad.", "param": "url"},
            {"code": "c", "line": None, "message": "m", "param": None},
        ],
    }
    assert (read.output_file_id, read.error_file_id) == ("file-2", "file-3")
    assert written["request_counts"] == {"total": 9, "completed": 7, "failed": 2}
    assert read.usage is not None
    assert read.usage.total_tokens == 42
    assert (read.model, read.metadata) == ("m", {"k": "v"})

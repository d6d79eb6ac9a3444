"""Uploads in parts: their time, and the MIME types that go with a purpose."""

import dataclasses
from contextlib import suppress

import pytest

from support.rows import an_upload
from tunery.domain.errors import InvalidRequest
from tunery.domain.files import FilePurpose
from tunery.domain.uploads import UploadStatus, check_mime_type


def test_a_pending_upload_expires_at_its_second_and_an_ended_one_never() -> None:
    upload = an_upload(created_at=1000, expires_at=4600)
    assert upload.status_at(4599) is UploadStatus.PENDING
    assert upload.status_at(4600) is UploadStatus.EXPIRED
    for status in (UploadStatus.COMPLETED, UploadStatus.CANCELLED, UploadStatus.EXPIRED):
        assert dataclasses.replace(upload, status=status).status_at(9999) is status


@pytest.mark.parametrize(
    ("mime_type", "purposes"),
    [
        ("text/jsonl", {"fine-tune", "batch", "assistants", "user_data", "evals"}),
        (
            "Application/JSONL; charset=utf-8",
            {"fine-tune", "batch", "assistants", "user_data", "evals"},
        ),
        ("text/csv", {"assistants", "user_data", "evals"}),
        ("application/pdf", {"assistants", "user_data", "evals"}),
        ("image/png", {"vision", "assistants", "user_data", "evals"}),
        ("video/mp4", {"user_data", "evals"}),
        ("pdf", set()),
        ("text/", set()),
        ("a b/c", set()),
        ("text/jsonl\n", set()),
        ("text/" + "x" * 255, set()),
        ("text/jsonl/x", set()),
        ("", set()),
    ],
)
def test_a_mime_type_goes_with_some_purposes(mime_type: str, purposes: set[str]) -> None:
    taken = set()
    for purpose in ("fine-tune", "batch", "vision", "assistants", "user_data", "evals"):
        with suppress(InvalidRequest):
            check_mime_type(mime_type, FilePurpose(purpose))
            taken.add(purpose)
    assert taken == purposes


def test_a_mime_type_is_refused_by_its_name_with_those_that_go() -> None:
    with pytest.raises(InvalidRequest, match="text/jsonl, application/jsonl") as refused:
        check_mime_type("text/csv", FilePurpose.BATCH)
    assert (refused.value.param, refused.value.code) == ("mime_type", "invalid_value")

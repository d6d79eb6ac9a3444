"""Files that expire, and files that come in parts, with the real SDK."""

import hashlib
import io
import re
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types import Upload

from support.server import BASE, Server, chat_line, chat_lines, poll, upload

FILES, UPLOADS = "/v1/files", "/v1/uploads"
HOUR = 3600


@pytest.fixture(scope="module")
def http(server: Server) -> httpx2.Client:
    return server.http()


def change(server: Server, statement: str, *values: object) -> None:
    """Change the database beneath the server: how tests move time on."""
    with closing(sqlite3.connect(server.data / "tunery.db", timeout=30)) as connection:
        connection.execute(statement, values)
        connection.commit()


def error_of(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return dict(response.json()["error"])


def pending(client: OpenAI, data: bytes, **fields: Any) -> Upload:
    wanted = {"filename": "train.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    return client.uploads.create(**{"bytes": len(data), **wanted, **fields})


def blobs(server: Server) -> set[Path]:
    """Return the bytes that are kept."""
    folders = (server.data / "blobs", server.data / "tmp")
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


# ---- files that expire


def test_a_file_expires_as_asked_and_then_answers_as_an_unknown_one(
    server: Server, client: OpenAI, http: httpx2.Client
) -> None:
    before = blobs(server)
    file = client.files.create(
        file=("notes.txt", b"some text"),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": HOUR},
    )
    assert file.expires_at == file.created_at + HOUR
    assert client.files.retrieve(file.id) == file
    (kept,) = blobs(server) - before
    change(server, "UPDATE files SET expires_at = ? WHERE id = ?", int(time.time()) - 1, file.id)
    unknown = "file-" + "0" * 24
    for verb, end in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
        answers = [http.request(verb, f"{FILES}/{name}{end}") for name in (file.id, unknown)]
        assert [one.status_code for one in answers] == [404, 404]
        assert answers[0].text.replace(file.id, "") == answers[1].text.replace(unknown, "")
    assert file.id not in http.get(FILES).text
    poll(lambda: not kept.exists(), "the expired file's bytes are swept")


@pytest.mark.parametrize(
    ("form", "param", "says"),
    [
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]", "Missing"),
        ({"expires_after[seconds]": "3600"}, "expires_after[anchor]", "Missing"),
        (
            {"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"},
            "expires_after[anchor]",
            "needed 'created_at'",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            "expires_after[seconds]",
            "from 3600 to 2592000",
        ),
        ({"expires_after[days]": "1"}, "expires_after[days]", "Unrecognized"),
        ({"expires_after": "1"}, "expires_after", "Unrecognized"),
        ({"colour": "blue"}, "colour", "Unrecognized"),
        ({"Purpose": "batch"}, "Purpose", "Unrecognized"),
    ],
)
def test_a_field_of_a_file_that_cannot_be_honoured_is_refused_by_name(
    server: Server, http: httpx2.Client, form: dict[str, str], param: str, says: str
) -> None:
    before = blobs(server)
    files = {"file": ("a.txt", b"text")}
    error = error_of(http.post(FILES, data={"purpose": "user_data", **form}, files=files), 400)
    assert error["param"] == param
    assert says in error["message"]
    assert blobs(server) == before


def test_a_second_file_is_refused_in_clear_words(http: httpx2.Client) -> None:
    two = [("file", ("a.txt", b"a")), ("file", ("b.txt", b"b"))]
    error = error_of(http.post(FILES, data={"purpose": "user_data"}, files=two), 400)
    assert "more than one 'file'" in error["message"]


def test_a_list_by_an_unknown_purpose_is_refused_with_those_that_there_are(
    http: httpx2.Client,
) -> None:
    error = error_of(http.get(FILES, params={"purpose": "nope"}), 400)
    assert error["param"] == "purpose"
    for purpose in ("batch_output", "assistants_output", "fine-tune-results", "user_data"):
        assert f"'{purpose}'" in error["message"]
        assert http.get(FILES, params={"purpose": purpose}).status_code == 200


def test_a_batch_file_needs_lines_of_json_and_expires_after_thirty_days(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Line 2 is not a dictionary"):
        client.files.create(file=("b.jsonl", b'{"a": 1}\n[]\n'), purpose="batch")
    file = client.files.create(file=("b.jsonl", b'{"a": 1}\n'), purpose="batch")
    assert file.expires_at == file.created_at + 30 * 24 * HOUR


def test_the_deprecated_way_to_a_files_content_is_the_same(client: OpenAI) -> None:
    file = client.files.create(file=("a.txt", b"some text"), purpose="user_data")
    with pytest.warns(DeprecationWarning, match="content"):
        text = client.files.retrieve_content(file.id)
    assert text == client.files.content(file.id).text == "some text"


def test_a_file_sent_again_under_its_key_is_the_first_one(
    server: Server, client: OpenAI, http: httpx2.Client
) -> None:
    def send(data: bytes, name: str = "a.txt") -> httpx2.Response:
        return http.post(
            FILES,
            data={"purpose": "user_data"},
            files={"file": (name, data)},
            headers={"idempotency-key": "file key 1"},
        )

    first = send(b"some text").json()
    before = blobs(server)
    assert send(b"some text").json() == first
    for other in (send(b"other text"), send(b"some text", "b.txt")):
        assert error_of(other, 409)["code"] == "idempotency_key_reused"
    assert blobs(server) == before
    assert client.files.content(first["id"]).read() == b"some text"


def test_a_line_with_a_key_twice_is_named_and_a_job_on_it_fails(client: OpenAI) -> None:
    lines = [chat_line(f"q{n}", "a") for n in range(12)]
    lines[6] = lines[6].replace('"content": "a"', '"content": "b", "content": "a"')
    file = upload(client, "\n".join(lines).encode())
    assert file.status == "error"
    assert file.status_details == "line 7: the key 'content' stands twice in one dictionary"
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)

    def failed() -> Any:
        now = client.fine_tuning.jobs.retrieve(job.id)
        return now.status == "failed" and now.error

    assert "line 7" in poll(failed, "the job fails").message


# ---- uploads in parts


def test_the_sdk_uploads_a_file_in_chunks(server: Server, client: OpenAI) -> None:
    data = chat_lines(200)
    before = blobs(server)
    done = client.uploads.upload_file_chunked(
        file=data,
        filename="train.jsonl",
        bytes=len(data),
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=1000,
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )
    assert (done.status, done.object, done.bytes) == ("completed", "upload", len(data))
    assert done.file is not None
    assert (done.file.filename, done.file.purpose) == ("train.jsonl", "fine-tune")
    assert client.files.content(done.file.id).read() == data
    assert client.files.wait_for_processing(done.file.id, poll_interval=0.1).status == "processed"
    assert len(blobs(server) - before) == 1  # the parts are gone


def test_parts_come_in_parallel_and_the_list_says_their_order(client: OpenAI) -> None:
    pieces = [f'{{"n": {n}}}\n'.encode() * 5000 for n in range(12)]
    new = pending(
        client,
        b"".join(pieces),
        purpose="batch",
        mime_type="application/jsonl",
        expires_after={"anchor": "created_at", "seconds": 2 * HOUR},
    )
    assert (new.status, new.file, new.expires_at) == ("pending", None, new.created_at + HOUR)

    def send(piece: bytes) -> str:
        part = client.uploads.parts.create(new.id, data=piece)
        assert (part.object, part.upload_id) == ("upload.part", new.id)
        return part.id

    with ThreadPoolExecutor(6) as pool:
        part_ids = list(pool.map(send, pieces))
    assert len(set(part_ids)) == 12
    done = client.uploads.complete(new.id, part_ids=part_ids[::-1])
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"".join(pieces[::-1])
    assert done.file.expires_at == done.file.created_at + 2 * HOUR
    assert client.uploads.complete(new.id, part_ids=part_ids[::-1]) == done
    with pytest.raises(openai.BadRequestError, match="is completed"):
        client.uploads.complete(new.id, part_ids=part_ids)


def test_a_part_may_come_as_a_plain_field(client: OpenAI, http: httpx2.Client) -> None:
    new = pending(client, b"some text", purpose="user_data", mime_type="text/plain")
    form = b'--edge\r\nContent-Disposition: form-data; name="data"\r\n\r\nsome text\r\n--edge--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    part = http.post(f"{UPLOADS}/{new.id}/parts", content=form, headers=headers).json()
    done = client.uploads.complete(new.id, part_ids=[part["id"]])
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"some text"


def test_a_completion_that_does_not_fit_leaves_the_upload_as_it_was(client: OpenAI) -> None:
    data = chat_lines(3)
    new = pending(client, data)
    first, second = (
        client.uploads.parts.create(new.id, data=half).id for half in (data[:40], data[40:])
    )
    for part_ids, md5, says in (
        ([first], "0" * 32, "have 40 bytes together"),
        ([first, second], "0" * 32, "MD5"),
        ([second, first], "f" * 32, "MD5"),
        ([first, "part_x"], "0" * 32, "no part part_x"),
        ([first, second], "no digest", "Invalid value for 'md5'"),
        ([], "0" * 32, "Invalid value for 'part_ids'"),
    ):
        with pytest.raises(openai.BadRequestError, match=says):
            client.uploads.complete(new.id, part_ids=part_ids, md5=md5)
    done = client.uploads.complete(new.id, part_ids=[first, second])
    assert done.status == "completed"


def test_an_upload_that_was_cancelled_takes_nothing_more(server: Server, client: OpenAI) -> None:
    before = blobs(server)
    new = pending(client, b"12")
    part = client.uploads.parts.create(new.id, data=b"12")
    assert client.uploads.cancel(new.id).status == "cancelled"
    assert client.uploads.cancel(new.id).status == "cancelled"
    assert blobs(server) == before
    for act in (
        lambda: client.uploads.parts.create(new.id, data=b"34"),
        lambda: client.uploads.complete(new.id, part_ids=[part.id]),
    ):
        with pytest.raises(openai.BadRequestError, match=f"Upload {new.id} is cancelled"):
            act()


def test_an_upload_expires_after_its_hour_and_its_parts_are_swept(
    server: Server, client: OpenAI
) -> None:
    before = blobs(server)
    new = pending(client, b"12")
    client.uploads.parts.create(new.id, data=b"12")
    change(server, "UPDATE uploads SET expires_at = ? WHERE id = ?", int(time.time()), new.id)
    for act in (
        lambda: client.uploads.parts.create(new.id, data=b"34"),
        lambda: client.uploads.cancel(new.id),
    ):
        with pytest.raises(openai.BadRequestError, match=f"Upload {new.id} is expired"):
            act()
    assert len(blobs(server) - before) == 1
    change(server, "UPDATE uploads SET expires_at = 1 WHERE id = ?", new.id)
    poll(lambda: blobs(server) == before, "the expired upload's parts are swept")


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"bytes": 0}, "bytes", "greater than or equal to 1"),
        ({"bytes": 8 * 2**30 + 1, "purpose": "user_data"}, "bytes", "less than or equal to"),
        ({"bytes": 513 * 2**20}, "bytes", "needed at most 536870912"),
        ({"bytes": 201 * 2**20, "purpose": "batch"}, "bytes", "needed at most 209715200"),
        ({"bytes": "12"}, "bytes", "valid integer"),
        ({"filename": ""}, "filename", "at least 1"),
        ({"filename": "x" * 256}, "filename", "at most 255"),
        ({"purpose": "fine-tune-results"}, "purpose", "'fine-tune-results' is not one of"),
        ({"mime_type": "text/csv"}, "mime_type", "needed one of text/jsonl"),
        ({"mime_type": "jsonl"}, "mime_type", "needed a type such as"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds", "Missing"),
        (
            {"expires_after": {"anchor": "created_at", "seconds": 60}},
            "expires_after.seconds",
            "3600",
        ),
        ({"colour": "blue"}, "colour", "Unrecognized"),
    ],
)
def test_an_upload_that_cannot_be_is_refused_by_the_field(
    http: httpx2.Client, fields: dict[str, Any], param: str, says: str
) -> None:
    good = {"bytes": 9, "filename": "a", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    error = error_of(http.post(UPLOADS, json=good | fields), 400)
    assert error["param"] == param
    assert says in error["message"]


def test_a_large_upload_is_taken_where_lines_are_not_read(client: OpenAI) -> None:
    new = pending(client, b"", bytes=8 * 2**30, purpose="user_data", mime_type="application/x-tar")
    assert (new.bytes, new.status) == (8_589_934_592, "pending")
    client.uploads.cancel(new.id)


@pytest.mark.parametrize(
    ("files", "data", "param", "says"),
    [
        ({"file": ("a", b"x")}, {}, "data", "Got a file in the field 'file'"),
        ([("data", ("a", b"x")), ("data", ("b", b"y"))], {}, "data", "more than one 'data'"),
        ({"data": ("a", b"x")}, {"colour": "blue"}, "colour", "Unrecognized"),
        ({"data": ("a", b"")}, {}, "data", "is empty"),
    ],
)
def test_a_part_that_cannot_be_is_refused_and_not_kept(
    server: Server, client: OpenAI, files: Any, data: Any, param: str, says: str
) -> None:
    new = pending(client, b"12")
    before = blobs(server)
    answer = server.http().post(f"{UPLOADS}/{new.id}/parts", files=files, data=data)
    error = error_of(answer, 400)
    assert error["param"] == param
    assert says in error["message"]
    assert blobs(server) == before


def test_a_part_of_64_mb_is_taken_and_one_byte_more_is_not(server: Server, client: OpenAI) -> None:
    full = bytes(64 * 2**20)
    new = pending(client, full, purpose="user_data", mime_type="application/octet-stream")
    with pytest.raises(openai.APIStatusError) as refused:
        client.uploads.parts.create(new.id, data=io.BytesIO(full + b"x"))
    assert (refused.value.status_code, refused.value.param) == (413, "data")
    part = client.uploads.parts.create(new.id, data=io.BytesIO(full))
    done = client.uploads.complete(new.id, part_ids=[part.id])
    assert done.file is not None
    assert done.file.bytes == len(full)
    client.files.delete(done.file.id)


def test_an_upload_and_a_part_sent_again_under_their_key_are_the_first_ones(
    server: Server, http: httpx2.Client
) -> None:
    body = {"bytes": 9, "filename": "a", "mime_type": "text/jsonl", "purpose": "fine-tune"}

    def create(**fields: Any) -> httpx2.Response:
        return http.post(UPLOADS, json=body | fields, headers={"idempotency-key": "upload 1"})

    def add(data: bytes) -> httpx2.Response:
        return http.post(
            f"{UPLOADS}/{upload_id}/parts",
            files={"data": ("upload", data)},
            headers={"idempotency-key": "part 1"},
        )

    upload_id = create().json()["id"]
    assert create().json()["id"] == upload_id
    assert error_of(create(bytes=10), 409)["code"] == "idempotency_key_reused"
    part = add(b'{"a": 1}\n').json()
    before = blobs(server)
    assert add(b'{"a": 1}\n').json() == part
    assert error_of(add(b'{"a": 2}\n'), 409)["code"] == "idempotency_key_reused"
    assert blobs(server) == before


def test_anothers_upload_answers_as_an_unknown_one(server: Server, client: OpenAI) -> None:
    new = pending(client, b"12")
    part = client.uploads.parts.create(new.id, data=b"12")
    stranger = server.http(server.new_key("--new-project", "uploads")[1])
    acts: dict[str, Callable[[str], httpx2.Response]] = {
        "parts": lambda i: stranger.post(f"{UPLOADS}/{i}/parts", files={"data": ("a", b"34")}),
        "complete": lambda i: stranger.post(
            f"{UPLOADS}/{i}/complete", json={"part_ids": [part.id]}
        ),
        "cancel": lambda i: stranger.post(f"{UPLOADS}/{i}/cancel"),
    }
    for act in acts.values():
        told = [(act(i), i) for i in (new.id, "upload_" + "0" * 24)]
        texts = [(r.status_code, r.text.replace(i, "<id>")) for r, i in told]
        assert texts[0] == texts[1]
        assert texts[0][0] == 404
        assert re.search("No such Upload object: <id>", texts[0][1])
    client.uploads.cancel(new.id)

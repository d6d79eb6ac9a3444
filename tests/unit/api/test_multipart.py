"""A file upload's form, in chunks of every size."""

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.api.multipart import MAX_FIELD_BYTES, MAX_PARTS, FilePart, UploadForm, read_form
from tunery.domain.errors import InvalidRequest, TooLarge

BOUNDARY = b"----edge42"
FILE, DATA = FilePart("file", named=True), FilePart("data", named=False)
CONTENT = b'{"a": 1}\r\n\r\n------edge4\r\n--\r\n-\x00\xff------edge4'


def part(disposition: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"Content-Disposition: form-data" + disposition, *headers]
    return b"--" + BOUNDARY + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body + b"\r\n"


def field(name: bytes, value: bytes) -> bytes:
    return part(b'; name="' + name + b'"', value)


def file(content: bytes, filename: bytes = b"train.jsonl", name: bytes = b"file") -> bytes:
    disposition = b'; name="' + name + b'"; filename="' + filename + b'"'
    return part(disposition, content, b"Content-Type: application/octet-stream")


END = b"--" + BOUNDARY + b"--\r\n"
FORM = field(b"purpose", b"fine-tune") + file(CONTENT) + field("späť".encode(), b"") + END


class Taken:
    """What a form gave on, in order."""

    def __init__(self, part: FilePart = FILE) -> None:
        self.events: list[str] = []
        self.content = b""
        self.form = UploadForm(BOUNDARY, part, self.on_field, self.on_bytes)

    def on_field(self, name: str, value: str) -> None:
        self.events.append(f"{name}={value}")

    def on_bytes(self, data: bytes) -> None:
        self.content += data
        if self.events[-1:] != ["file"]:
            self.events.append("file")


def take(chunks: Iterable[bytes], part: FilePart = FILE) -> Taken:
    taken = Taken(part)
    for chunk in chunks:
        taken.form.feed(chunk)
    return taken


def sliced(data: bytes, size: int) -> Iterable[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def refusal(data: bytes) -> InvalidRequest:
    """Return the refusal, which is to be the same for a whole form and for single bytes."""
    found = []
    for size in (len(data), 1):
        with pytest.raises(InvalidRequest) as caught:
            take(sliced(data, size))
        found.append(caught.value)
    assert found[0].param == found[1].param
    return found[1]


@pytest.mark.parametrize("size", range(1, len(FORM) + 1))
def test_chunks_of_every_size_give_the_same_form(size: int) -> None:
    taken = take(sliced(FORM, size))
    assert taken.events == ["purpose=fine-tune", "file", "späť="]
    assert taken.content == CONTENT
    assert taken.form.fields == {"purpose": "fine-tune", "späť": ""}
    assert (taken.form.filename, taken.form.finished) == ("train.jsonl", True)


@untimed
@given(
    st.lists(st.sampled_from([b"\r\n", b"--", BOUNDARY[:6], b"\r", b"\n", b"-", b"x\xff"])).map(
        b"".join
    ),
    st.data(),
)
def test_any_bytes_of_a_file_come_through_any_cuts(content: bytes, draw: st.DataObject) -> None:
    data = file(content) + END
    places = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    edges = [0, *places, len(data)]
    taken = take(data[a:b] for a, b in pairwise(edges))
    assert taken.content == content
    assert taken.form.finished


@pytest.mark.parametrize("cut", range(len(FORM) - 4, 0, -7))
def test_a_form_without_its_closing_boundary_is_not_finished(cut: int) -> None:
    assert not take([FORM[:cut]]).form.finished


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        (b"../../etc/passwd", "passwd"),
        (b"/abs/a.jsonl", "a.jsonl"),
        (b"C:\\dir\\b.jsonl", "b.jsonl"),
        (b"..\\c.jsonl", "c.jsonl"),
        ("ñandú 😀.jsonl".encode(), "ñandú 😀.jsonl"),
        (b"\xff.jsonl", "\ufffd.jsonl"),
        (b"a; b.jsonl", "a; b.jsonl"),
        (b"", ""),
    ],
)
def test_a_filename_is_its_last_part(filename: bytes, shown: str) -> None:
    assert take([file(b"x", filename) + END]).form.filename == shown


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (file(b"a") + file(b"b"), "file"),
        (file(b"a", name=b"training_file"), "file"),
        (field(b"file", b"bytes without a filename"), "file"),
        (field(b"purpose", b"a") + field(b"purpose", b"b"), "purpose"),
        (field(b"purpose", b"x" * (MAX_FIELD_BYTES + 1)), "purpose"),
        (part(b"", b"no name"), None),
        (part(b'; name=""', b"empty name"), None),
        (b"--" + BOUNDARY + b"\r\nContent-Type: text/plain\r\n\r\nno disposition\r\n", None),
        (b"".join(field(b"f%d" % n, b"") for n in range(MAX_PARTS + 1)), None),
        (part(b'; name="a"', b"", b"X: " + b"y" * 10_000), None),
        (part(b'; name="a"', b"", *[b"X: y"] * 1000), None),
        (b"not a form at all", None),
        (b"--another\r\n\r\n", None),
        (b"--" + BOUNDARY + b"\r\nbroken header\r\n\r\n", None),
    ],
)
def test_a_form_that_cannot_be_taken_is_refused(data: bytes, param: str | None) -> None:
    assert refusal(data + END).param == param


def test_a_field_and_the_parts_may_be_as_many_as_their_limits() -> None:
    long = field(b"f0", b"x" * MAX_FIELD_BYTES)
    rest = b"".join(field(b"f%d" % n, b"") for n in range(1, MAX_PARTS))
    taken = take(sliced(long + rest + END, 100))
    assert taken.form.finished
    assert len(taken.form.fields) == MAX_PARTS
    assert len(taken.form.fields["f0"]) == MAX_FIELD_BYTES


@pytest.mark.parametrize(
    ("data", "filename"),
    [
        (file(CONTENT, b"upload", name=b"data"), "upload"),  # as the SDK sends it
        (field(b"data", CONTENT), None),  # as curl -F data=... does
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_part_of_an_upload_comes_with_a_filename_or_without(
    data: bytes, filename: str | None, size: int
) -> None:
    taken = take(sliced(data + field(b"x", b"y") + END, size), DATA)
    assert (taken.content, taken.events) == (CONTENT, ["file", "x=y"])
    assert (taken.form.filename, taken.form.has_file) == (filename, True)
    assert len(CONTENT) < MAX_FIELD_BYTES < len(take([field(b"data", b"z" * 9999)], DATA).content)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (field(b"data", b"a") + field(b"data", b"b"), "more than one 'data'"),
        (file(b"a", name=b"data") + field(b"data", b"b"), "more than one 'data'"),
        (file(b"a", name=b"file"), "Got a file in the field 'file'; needed one file, in 'data'"),
    ],
)
def test_an_uploads_part_stands_alone(data: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        take([data + END], DATA)
    assert refused.value.param == "data"


def test_a_form_without_its_file_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidRequest, match="Missing required parameter: 'file'") as refused:
        read([field(b"purpose", b"batch") + END], TYPE)
    assert refused.value.param == "file"


def test_a_file_is_given_on_as_it_comes() -> None:
    taken = Taken()
    head = file(b"first")[: -len(b"\r\n")]
    taken.form.feed(head)
    assert taken.content == b"first"
    taken.form.feed(b" second")
    assert taken.content == b"first second"


def test_an_error_of_a_callback_is_not_swallowed() -> None:
    def full(_: bytes) -> None:
        raise TooLarge("too large", param="file")

    form = UploadForm(BOUNDARY, FILE, lambda *_: None, full)
    with pytest.raises(TooLarge):
        form.feed(FORM)


def read(
    chunks: list[bytes], headers: dict[str, str], *, gone: bool = False, max_bytes: int = 10**6
) -> Taken:
    """Read a request's form as the server does."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": gone or number < len(chunks)}
        for number, chunk in enumerate(chunks, 1)
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    taken = Taken()
    taken.form = asyncio.run(
        read_form(Request(scope, receive), FILE, max_bytes, taken.on_field, taken.on_bytes)
    )
    return taken


TYPE = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


def test_a_request_is_read_to_its_end() -> None:
    big = b"0123456789abcdef" * 200_000  # more than the bytes given on at a time
    taken = read(list(sliced(file(big) + END, 65_536)), TYPE, max_bytes=len(big))
    assert taken.content == big
    assert taken.form.finished


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/mixed; boundary=x",
        f"multipart/form-data; boundary={'x' * 5000}",
    ],
)
def test_a_request_that_is_no_form_is_refused(content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    with pytest.raises(InvalidRequest):
        read([FORM], headers)


def test_a_length_over_the_cap_is_refused_before_the_body_is_read() -> None:
    with pytest.raises(TooLarge):
        read([FORM], TYPE | {"content-length": str(10**6 + 2**20 + 1)})
    # The form's own bytes are not the file's: what may still fit is read.
    assert read([FORM], TYPE | {"content-length": str(10**6 + 2**20)}).content == CONTENT


@pytest.mark.parametrize("gone", [True, False])
def test_a_request_that_ends_early_is_refused(gone: bool) -> None:
    with pytest.raises(InvalidRequest, match="went away" if gone else "closing boundary"):
        read([FORM[:100]], TYPE, gone=gone)

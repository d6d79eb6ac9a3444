"""A form with one file in it, streamed: the file's bytes go on as they come, none is kept aside."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from tunery.api.body import refuse_encoded
from tunery.domain.errors import InvalidRequest, TooLarge

MAX_PARTS = 16
MAX_FIELD_BYTES = 4096
_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FilePart:
    """The field of a form that holds the file, and whether it has to come with a filename."""

    name: str
    named: bool


class UploadForm:
    """The fields of a form with one file part; the file's bytes go to `on_file_bytes`."""

    def __init__(
        self,
        boundary: bytes,
        part: FilePart,
        on_field: Callable[[str, str], None],
        on_file_bytes: Callable[[bytes], None],
    ) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.has_file = False
        self.finished = False
        self._part = part
        self._on_field = on_field
        self._on_file_bytes = on_file_bytes
        self._parts = 0
        self._header_name = b""
        self._header_value = b""
        self._name = ""
        self._part_filename: str | None = None
        self._is_file = False
        self._value = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value_part,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._finish,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"Could not parse the multipart form: {error}.") from None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest(f"Could not parse the multipart form: {error}.") from None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
        self._name, self._part_filename, self._is_file, self._value = "", None, False, b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]  # the parser bounds a header's size

    def _header_value_part(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options:
                # Only its last part: a name is shown to people and never used as a path.
                name = options[b"filename"].decode("utf-8", "replace")
                self._part_filename = name.replace("\\", "/").rpartition("/")[2]
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        if not self._name:
            raise InvalidRequest("A part of the form has no name.")
        wanted = self._part.name
        if self._name != wanted:
            if self._part_filename is not None:
                raise InvalidRequest(
                    f"Got a file in the field {self._name[:80]!r}; needed one file, in {wanted!r}.",
                    param=wanted,
                )
            return
        if self._part.named and self._part_filename is None:
            raise InvalidRequest(
                f"The field {wanted!r} needs to be a file with a filename.", param=wanted
            )
        if self.has_file:
            raise InvalidRequest(
                f"The form has more than one {wanted!r}; send one in each request.", param=wanted
            )
        self._is_file = self.has_file = True
        self.filename = self._part_filename

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._on_file_bytes(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise InvalidRequest(
                f"The field {self._name[:80]!r} is longer than {MAX_FIELD_BYTES} bytes.",
                param=self._name[:80],
            )

    def _end(self) -> None:
        if not self._is_file:
            if self._name in self.fields:
                raise InvalidRequest(
                    f"The field {self._name[:80]!r} is given twice.", param=self._name[:80]
                )
            self.fields[self._name] = self._value.decode("utf-8", "replace")
            self._on_field(self._name, self.fields[self._name])

    def _finish(self) -> None:
        self.finished = True


async def read_form(
    request: Request,
    part: FilePart,
    max_bytes: int,
    on_field: Callable[[str, str], None],
    on_file_bytes: Callable[[bytes], None],
) -> UploadForm:
    """Read the request's form to its end; the callbacks run on another thread, in order."""
    refuse_encoded(request)
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data" or not boundary:
        raise InvalidRequest(
            "Uploads need Content-Type multipart/form-data with a boundary; got"
            f" {request.headers.get('content-type', 'none')[:80]!r}."
        )
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes + _BATCH_BYTES:
        raise TooLarge(f"The upload is larger than {max_bytes} bytes.", param=part.name)
    form = UploadForm(boundary, part, on_field, on_file_bytes)
    batch = bytearray()
    try:
        async for chunk in request.stream():
            batch += chunk
            if len(batch) >= _BATCH_BYTES:
                await run_in_threadpool(form.feed, bytes(batch))
                batch.clear()
    except ClientDisconnect:
        raise InvalidRequest("The client went away before the upload was complete.") from None
    await run_in_threadpool(form.feed, bytes(batch))
    if not form.finished:
        raise InvalidRequest("The multipart form ends before its closing boundary.")
    if not form.has_file:
        raise InvalidRequest(
            f"Missing required parameter: '{part.name}'.",
            param=part.name,
            code="missing_required_parameter",
        )
    return form

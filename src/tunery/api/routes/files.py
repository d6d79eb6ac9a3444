"""/v1/files."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tunery.api.body import documented, read_json
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.multipart import FilePart, UploadForm, read_form
from tunery.api.once import once_key
from tunery.domain.errors import InvalidRequest
from tunery.domain.files import (
    MAX_EXPIRY_S,
    MIN_EXPIRY_S,
    UPLOAD_PURPOSES,
    StoredFile,
    known_purpose,
    upload_purpose,
)
from tunery.domain.once import AlreadyDone
from tunery.domain.tenants import Tenant
from tunery.protocol.base import ListPage
from tunery.protocol.file_checks import CheckFileRequest, FileCheck
from tunery.protocol.files import FileDeleted, FileObject
from tunery.services import file_checks, files, uploads
from tunery.wire.file_checks import to_wire_check
from tunery.wire.files import ANCHOR, SECONDS, from_wire_expiry_field, to_wire_file
from tunery.wire.pages import to_wire_page

router = APIRouter(prefix="/v1/files")
_FILE = FilePart("file", named=True)

_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": [str(purpose) for purpose in UPLOAD_PURPOSES]},
        ANCHOR: {"type": "string", "enum": ["created_at"]},
        SECONDS: {"type": "integer", "minimum": MIN_EXPIRY_S, "maximum": MAX_EXPIRY_S},
    },
}
_DOCUMENTED = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}
_BYTES = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}


@router.post("", openapi_extra=_DOCUMENTED)
async def create(request: Request, caller: CallerDependency) -> FileObject:
    """Upload a file: multipart fields `file`, `purpose` and `expires_after`."""
    try:
        file = await _receive(request, caller.tenant)
    except AlreadyDone as done:
        file = await run_in_threadpool(
            files.get_file, context_of(request).database, caller.tenant, done.object_id
        )
    return to_wire_file(file)


@router.get("")
async def list_all(
    request: Request,
    caller: CallerDependency,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> ListPage[FileObject]:
    """List files, newest first unless asked otherwise."""
    page = await run_in_threadpool(
        files.list_files,
        context_of(request).database,
        caller.tenant,
        purpose=None if purpose is None else known_purpose(purpose),
        after=after,
        limit=limit,
        order=order,
    )
    return to_wire_page([to_wire_file(file) for file in page.items], page.has_more)


@router.get("/{file_id}")
async def retrieve(request: Request, caller: CallerDependency, file_id: str) -> FileObject:
    """Return a file's object."""
    return to_wire_file(
        await run_in_threadpool(
            files.get_file, context_of(request).database, caller.tenant, file_id
        )
    )


@router.get("/{file_id}/content", response_class=StreamingResponse, responses={200: _BYTES})
async def content(request: Request, caller: CallerDependency, file_id: str) -> StreamingResponse:
    """Return a file's bytes."""
    context = context_of(request)
    chunks = await run_in_threadpool(
        files.file_content,
        context.database,
        context.blobs,
        caller.tenant,
        file_id,
        results_as_base64=context.results_as_base64,
    )
    return StreamingResponse(chunks, media_type="application/octet-stream")


@router.delete("/{file_id}")
async def delete(request: Request, caller: CallerDependency, file_id: str) -> FileDeleted:
    """Remove a file."""
    context = context_of(request)
    await run_in_threadpool(
        files.delete_file, context.database, context.blobs, caller.tenant, file_id
    )
    return FileDeleted(id=file_id)


@router.post("/{file_id}/check", openapi_extra=documented(CheckFileRequest))
async def check(request: Request, caller: CallerDependency, file_id: str) -> FileCheck:
    """Say what is in a training file: an extension of ours."""
    context = context_of(request)
    body = await read_json(request, CheckFileRequest)
    checked = await run_in_threadpool(
        file_checks.check_content,
        context.database,
        context.blobs,
        context.directory,
        context.checker,
        caller.tenant,
        file_id,
        model=body.model,
        validation_file=body.validation_file,
    )
    return to_wire_check(checked)


async def _receive(request: Request, tenant: Tenant) -> StoredFile:
    context = context_of(request)
    with uploads.receive(context.blobs, tenant, context.max_file_bytes) as upload:

        def on_field(name: str, value: str) -> None:
            if name == "purpose":
                upload.expect(upload_purpose(value))
            elif name in (ANCHOR, SECONDS):
                from_wire_expiry_field(name, value)
            else:
                raise InvalidRequest(
                    f"Unrecognized request argument supplied: {name[:80]}",
                    param=name[:80],
                    code="unknown_parameter",
                )

        form = await read_form(request, _FILE, context.max_file_bytes, on_field, upload.write)
        purpose, filename = upload_purpose(_required(form, "purpose")), form.filename or ""
        seconds = None
        if ANCHOR in form.fields or SECONDS in form.fields:
            _required(form, ANCHOR)
            seconds = from_wire_expiry_field(SECONDS, _required(form, SECONDS))
        once = once_key(request, purpose, filename, upload.sha256, str(seconds))
        return await run_in_threadpool(
            upload.finish,
            context.database,
            tenant,
            purpose,
            filename,
            expires_after_s=seconds,
            once=once,
        )


def _required(form: UploadForm, name: str) -> str:
    if name not in form.fields:
        raise InvalidRequest(
            f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
        )
    return form.fields[name]

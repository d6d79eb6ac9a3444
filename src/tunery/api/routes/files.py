"""/v1/files."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.multipart import read_form
from tunery.domain.errors import InvalidRequest
from tunery.domain.files import JSONL_PURPOSES, UPLOAD_PURPOSES, FilePurpose, StoredFile
from tunery.domain.tenants import Tenant
from tunery.protocol.base import ListPage
from tunery.protocol.files import FileDeleted, FileObject
from tunery.services import files, uploads
from tunery.wire.files import to_wire_file
from tunery.wire.pages import to_wire_page

router = APIRouter(prefix="/v1/files")


_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": [str(purpose) for purpose in UPLOAD_PURPOSES]},
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
    """Upload a file: multipart fields `file` and `purpose`."""
    return to_wire_file(await _receive(request, caller.tenant))


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
        purpose=purpose,
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


async def _receive(request: Request, tenant: Tenant) -> StoredFile:
    context = context_of(request)
    with uploads.receive(context.blobs, tenant, context.max_file_bytes) as upload:

        def on_field(name: str, value: str) -> None:
            if name != "purpose":
                raise InvalidRequest(
                    f"Unsupported parameter: '{name[:80]}' is not supported by this server yet.",
                    param=name[:80],
                    code="unsupported_parameter",
                )
            upload.expects_jsonl = _purpose(value) in JSONL_PURPOSES

        form = await read_form(request, context.max_file_bytes, on_field, upload.write)
        if form.filename is None:
            raise InvalidRequest("Missing required parameter: 'file'.", param="file")
        if "purpose" not in form.fields:
            raise InvalidRequest("Missing required parameter: 'purpose'.", param="purpose")
        return await run_in_threadpool(
            upload.finish,
            context.database,
            tenant,
            _purpose(form.fields["purpose"]),
            form.filename,
        )


def _purpose(value: str) -> FilePurpose:
    if value not in UPLOAD_PURPOSES:
        raise InvalidRequest(
            f"'{value[:80]}' is not one of {[str(p) for p in UPLOAD_PURPOSES]} - 'purpose'",
            param="purpose",
            code="invalid_value",
        )
    return FilePurpose(value)

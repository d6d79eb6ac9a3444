"""/v1/uploads: a file that comes in parts."""

import time

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from tunery.api.body import documented, read_json
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.multipart import FilePart, read_form
from tunery.api.once import once_key
from tunery.domain import uploads as records
from tunery.domain.errors import InvalidRequest
from tunery.domain.once import AlreadyDone
from tunery.domain.tenants import Tenant
from tunery.protocol.uploads import (
    CompleteUploadRequest,
    CreateUploadRequest,
    Upload,
    UploadPart,
)
from tunery.services import multipart_uploads as uploads
from tunery.wire.uploads import from_wire_upload, to_wire_part, to_wire_upload

router = APIRouter(prefix="/v1/uploads")
_DATA = FilePart("data", named=False)
_FORM = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary"}},
}
_DOCUMENTED = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}


@router.post("", openapi_extra=documented(CreateUploadRequest))
async def create(request: Request, caller: CallerDependency) -> Upload:
    """Create an upload."""
    context = context_of(request)
    body = await read_json(request, CreateUploadRequest)
    try:
        view = await run_in_threadpool(
            uploads.create_upload,
            context.database,
            caller.tenant,
            from_wire_upload(body),
            context.max_file_bytes,
            once_key(request, body),
        )
    except AlreadyDone as done:
        view = await run_in_threadpool(
            uploads.get_upload, context.database, caller.tenant, done.object_id
        )
    return to_wire_upload(view, int(time.time()))


@router.post("/{upload_id}/parts", openapi_extra=_DOCUMENTED)
async def add_part(request: Request, caller: CallerDependency, upload_id: str) -> UploadPart:
    """Add a part: the multipart field `data`."""
    try:
        part = await _receive(request, caller.tenant, upload_id)
    except AlreadyDone as done:
        part = await run_in_threadpool(
            uploads.get_part, context_of(request).database, caller.tenant, done.object_id
        )
    return to_wire_part(part)


@router.post("/{upload_id}/complete", openapi_extra=documented(CompleteUploadRequest))
async def complete(request: Request, caller: CallerDependency, upload_id: str) -> Upload:
    """Make the file of its parts."""
    context = context_of(request)
    body = await read_json(request, CompleteUploadRequest)
    try:
        view = await run_in_threadpool(
            uploads.complete_upload,
            context.database,
            context.blobs,
            caller.tenant,
            upload_id,
            body.part_ids,
            body.md5,
            context.max_file_bytes,
            once_key(request, body),
        )
    except AlreadyDone:
        view = await run_in_threadpool(
            uploads.get_upload, context.database, caller.tenant, upload_id
        )
    return to_wire_upload(view, int(time.time()))


@router.post("/{upload_id}/cancel")
async def cancel(request: Request, caller: CallerDependency, upload_id: str) -> Upload:
    """End an upload without a file."""
    context = context_of(request)
    view = await run_in_threadpool(
        uploads.cancel_upload, context.database, context.blobs, caller.tenant, upload_id
    )
    return to_wire_upload(view, int(time.time()))


async def _receive(request: Request, tenant: Tenant, upload_id: str) -> records.UploadPart:
    context = context_of(request)
    # Before the bytes are taken; once more when they are there.
    await run_in_threadpool(uploads.require_pending, context.database, tenant, upload_id)
    with uploads.receive_part(context.blobs, tenant) as part:
        await read_form(request, _DATA, records.MAX_PART_BYTES, _refuse_field, part.write)
        return await run_in_threadpool(
            part.finish,
            context.database,
            tenant,
            upload_id,
            once_key(request, part.sha256),
        )


def _refuse_field(name: str, value: str) -> None:
    raise InvalidRequest(
        f"Unrecognized request argument supplied: {name[:80]}",
        param=name[:80],
        code="unknown_parameter",
    )

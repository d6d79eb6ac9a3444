"""A training file's content is looked at on demand, and its owner told what is in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunery.datasets.preparing.check_order import CheckedBase, CheckOrder
from tunery.datasets.preparing.check_process import FileChecker
from tunery.datasets.preparing.estimate import Estimate, estimate
from tunery.domain.errors import InvalidRequest
from tunery.domain.files import FilePurpose, LineFormat, StoredFile
from tunery.domain.models import BaseModel
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tenants import Tenant
from tunery.services.files import find_file
from tunery.services.models import ModelDirectory, unknown_model
from tunery.storage.database import Database


@dataclass(frozen=True, slots=True)
class CheckedContent:
    """The files that were looked at, the report on them, and what training would cost."""

    files: tuple[StoredFile, ...]
    report: dict[str, Any]
    estimate: Estimate | None


def check_content(
    database: Database,
    blobs: BlobStore,
    directory: ModelDirectory,
    checker: FileChecker,
    tenant: Tenant,
    file_id: str,
    *,
    model: str | None = None,
    validation_file: str | None = None,
) -> CheckedContent:
    """Return what is in a training file, and what of a validation file is in it too.

    With a `model`, tokens are counted as its base would. Nothing is kept of what was found.
    """
    base: BaseModel | None = None
    with database.read() as tx:
        files = [_training_file(find_file(tx, tenant, file_id), "id")]
        if validation_file is not None:
            found = find_file(tx, tenant, validation_file)
            files.append(_training_file(found, "validation_file"))
        if model is not None:
            named = directory.find(tx, tenant, model)
            if named is None:
                raise unknown_model(model)
            base = named.base
    order = CheckOrder(
        files[0].size_bytes,
        files[1].size_bytes if validation_file is not None else None,
        None if base is None else CheckedBase(base.name, base.path, base.context_tokens),
    )
    report = checker.check(tenant.project_id, order, _bytes_of(blobs, files))
    return CheckedContent(tuple(files), report, _cost(base, report))


def _training_file(file: StoredFile, param: str) -> StoredFile:
    if file.purpose is not FilePurpose.FINE_TUNE:
        raise InvalidRequest(
            f"File {file.id} has purpose {str(file.purpose)!r}; only files of purpose 'fine-tune'"
            " can be checked.",
            param=param,
            code="invalid_file",
        )
    return file


def _bytes_of(blobs: BlobStore, files: list[StoredFile]) -> Iterator[bytes]:
    for file in files:
        yield from blobs.stream(file.blob_key)


def _cost(base: BaseModel | None, report: dict[str, Any]) -> Estimate | None:
    train = next((one for one in report["written"] if one["role"] == "train"), None)
    if base is None or train is None:
        return None
    return estimate(base, LineFormat(report["line_format"]), train["examples"], train["tokens"])

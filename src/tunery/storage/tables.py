"""The tables. Rows that clients name are unique per project; `seq` orders them as they came.

Text that a tenant wrote and that is kept in a row goes through `Sealed`, so that encryption at
rest is one change in one place.
"""

from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import JSON, TypeDecorator

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class Sealed(TypeDecorator[Any]):
    """A JSON value with a tenant's own text in it, kept as bytes."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        """Return the value as bytes."""
        return None if value is None else orjson.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the bytes as a value."""
        return None if value is None else orjson.loads(value)


# SQLite numbers rows by itself only for INTEGER PRIMARY KEY.
Sequence = BigInteger().with_variant(Integer, "sqlite")


def _seq() -> Column[int]:
    return Column("seq", Sequence, primary_key=True, autoincrement=True)


organizations = Table(
    "organizations",
    metadata,
    _seq(),
    Column("id", String(40), nullable=False, unique=True),
    Column("slug", String(64), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    _seq(),
    Column("id", String(40), nullable=False, unique=True),
    Column("organization_id", String(40), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    _seq(),
    Column("id", String(40), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("hint", String(8), nullable=False),
    Column("secret_hmac", LargeBinary(32), nullable=False, unique=True),
    Column("organization_id", String(40), nullable=False),
    Column("project_id", String(40), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

files = Table(
    "files",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("filename", Sealed, nullable=False),
    Column("purpose", String(24), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("blob_key", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("report", Sealed),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    UniqueConstraint("project_id", "id"),
    Index("ix_files_expires_at", "expires_at"),
    Index("ix_files_project_id_seq", "project_id", "seq"),
)

uploads = Table(
    "uploads",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("filename", Sealed, nullable=False),
    Column("purpose", String(24), nullable=False),
    Column("mime_type", Sealed, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("file_id", String(40)),
    Column("completion_digest", LargeBinary(32)),
    Column("file_expires_after_s", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id"),
    Index("ix_uploads_status_expires_at", "status", "expires_at"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("upload_id", String(40), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("blob_key", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id"),
    Index("ix_upload_parts_project_id_upload_id", "project_id", "upload_id"),
)

jobs = Table(
    "jobs",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("model", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("parent_model", Text),
    Column("training_file", String(40), nullable=False),
    Column("validation_file", String(40)),
    Column("suffix", String(64)),
    Column("seed", BigInteger, nullable=False),
    Column("method", String(24), nullable=False, server_default="supervised"),
    Column("requested", JSON, nullable=False),
    Column("resolved", JSON(none_as_null=True)),
    Column("metadata", Sealed),
    Column("integrations", Sealed),
    Column("status", String(24), nullable=False),
    Column("error", Sealed),
    Column("trained_tokens", BigInteger),
    Column("estimated_finish", BigInteger),
    Column("fine_tuned_model", Text),
    Column("result_files", JSON, nullable=False),
    Column("snapshot", JSON(none_as_null=True)),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("imported_from", Text),
    Column("replaces", Text),
    UniqueConstraint("project_id", "id"),
    Index("ix_jobs_project_id_seq", "project_id", "seq"),
)

job_events = Table(
    "job_events",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("job_id", String(40), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("level", String(8), nullable=False),
    Column("kind", String(24), nullable=False),
    Column("message", Sealed, nullable=False),
    Column("data", JSON(none_as_null=True)),
    UniqueConstraint("project_id", "id"),
    Index("ix_job_events_project_id_job_id_seq", "project_id", "job_id", "seq"),
)

epoch_checkpoints = Table(
    "epoch_checkpoints",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("job_id", String(40), nullable=False),
    Column("step", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("adapter_key", Text, nullable=False),
    Column("adapter_digest", String(64), nullable=False),
    Column("metrics", JSON, nullable=False),
    UniqueConstraint("project_id", "job_id", "step"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("job_id", String(40), nullable=False),
    Column("step", Integer, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id"),
    UniqueConstraint("project_id", "job_id", "step"),
    Index("ix_checkpoints_project_id_seq", "project_id", "seq"),
)

models = Table(
    "models",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("name", Text, nullable=False),
    Column("job_id", String(40), nullable=False),
    Column("base", Text, nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("adapter_key", Text, nullable=False),
    Column("adapter_digest", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "name"),
)

checkpoint_permissions = Table(
    "checkpoint_permissions",
    metadata,
    _seq(),
    Column("organization_id", String(40), nullable=False),
    Column("id", String(40), nullable=False, unique=True),
    Column("owner_project_id", String(40), nullable=False),
    Column("model_name", Text, nullable=False),
    Column("project_id", String(40), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("owner_project_id", "model_name", "project_id"),
    Index("ix_checkpoint_permissions_project_id", "project_id"),
)

# Which objects carry which metadata, to filter by: a digest each of project, key and value.
labels = Table(
    "labels",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("owner_id", String(64), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    UniqueConstraint("project_id", "owner_id", "digest"),
    Index("ix_labels_project_id_digest", "project_id", "digest"),
)

stored_completions = Table(
    "stored_completions",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(64), nullable=False),
    Column("model", Text, nullable=False),
    Column("metadata", Sealed),
    Column("request", Sealed, nullable=False),
    Column("response", Sealed, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id"),
    Index("ix_stored_completions_project_id_seq", "project_id", "seq"),
)

responses = Table(
    "responses",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(64), nullable=False),
    Column("previous_id", String(64)),
    Column("model", Text, nullable=False),
    Column("input_items", Sealed, nullable=False),
    Column("response", Sealed, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id"),
    Index("ix_responses_expires_at", "expires_at"),
)

batches = Table(
    "batches",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("input_file_id", String(40), nullable=False),
    Column("completion_window", String(16), nullable=False),
    Column("output_expires_after_s", BigInteger),
    Column("metadata", Sealed),
    Column("status", String(16), nullable=False),
    Column("errors", Sealed),
    Column("model", Text),
    Column("output_file_id", String(40)),
    Column("error_file_id", String(40)),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("in_progress_at", BigInteger),
    Column("finalizing_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("expired_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("cancelled_at", BigInteger),
    UniqueConstraint("project_id", "id"),
    Index("ix_batches_project_id_seq", "project_id", "seq"),
)

# The answers that a running batch has so far; its files are made of them at the end.
batch_answers = Table(
    "batch_answers",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("batch_id", String(40), nullable=False),
    Column("line", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("answer", Sealed, nullable=False),
    UniqueConstraint("project_id", "batch_id", "line"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("name", Sealed, nullable=False),
    Column("url", Sealed, nullable=False),
    Column("event_types", JSON, nullable=False),
    Column("secret", Sealed, nullable=False),
    Column("old_secrets", Sealed, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id"),
    Index("ix_webhook_endpoints_project_id_seq", "project_id", "seq"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("id", String(40), nullable=False),
    Column("endpoint_id", String(40), nullable=False),
    Column("event_id", String(40), nullable=False),
    Column("event_type", String(64), nullable=False),
    Column("body", Sealed, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id"),
    Index("ix_webhook_deliveries_project_id_endpoint_id", "project_id", "endpoint_id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("key_digest", LargeBinary(32), nullable=False),
    Column("request_digest", LargeBinary(32), nullable=False),
    Column("status", Integer, nullable=False),
    Column("object_id", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "key_digest"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

usage = Table(
    "usage",
    metadata,
    _seq(),
    Column("project_id", String(40), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("model", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("key_id", String(40)),
    Column("end_user", Sealed),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_nanodollars", BigInteger, nullable=False),
    Column("batch", Integer, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("project_id", "request_id"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Sequence, primary_key=True, autoincrement=True),
    Column("kind", String(24), nullable=False),
    Column("subject", String(40), nullable=False),
    Column("organization_id", String(40), nullable=False),
    Column("organization_slug", String(64), nullable=False),
    Column("project_id", String(40), nullable=False),
    Column("state", String(16), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("run_after", Float(53), nullable=False),
    Column("lease_until", Float(53)),
    Index("ix_tasks_state_kind_run_after", "state", "kind", "run_after"),
    Index("ix_tasks_project_id_subject", "project_id", "subject"),
)

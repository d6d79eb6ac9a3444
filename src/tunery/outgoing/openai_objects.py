"""OpenAI's objects, as they come, to records of ours.

What the service leaves out, or writes in another way than its document says, is taken as it is:
old jobs have no `method`, some have no `seed`, and an `error` that is there may be empty.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from tunery.domain.imports import SourceFile, SourceJob, SourceModel, SourceUsage
from tunery.domain.jobs import (
    TERMINAL,
    Checkpoint,
    Hyperparameters,
    Job,
    JobError,
    JobStatus,
    LogEntry,
    RequestedHyperparameters,
    TrainingMethod,
    WandbIntegration,
)

_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")  # what a row takes, and part of a blob's key
_SUFFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KINDS: tuple[Literal["message", "metrics", "moderation_checks"], ...] = (
    "message",
    "metrics",
    "moderation_checks",
)
_LEVELS: tuple[Literal["info", "warn", "error"], ...] = ("info", "warn", "error")

Object = Mapping[str, Any]


def valid_id(value: object) -> bool:
    """Return whether an object can be kept under this id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def model_of(value: Object) -> SourceModel | None:
    """Return a tuned model; None for any other one."""
    name = value.get("id")
    if not isinstance(name, str) or not name.startswith("ft:"):
        return None
    return SourceModel(name, _integer(value.get("created")) or 0)


def file_of(value: Object) -> SourceFile:
    """Return a file."""
    return SourceFile(
        id=str(value.get("id")),
        filename=_text(value.get("filename")) or str(value.get("id")),
        purpose=_text(value.get("purpose")) or "unknown",
        size_bytes=_integer(value.get("bytes")),
        created_at=_integer(value.get("created_at")) or 0,
        expires_at=_integer(value.get("expires_at")),
    )


def job_of(value: Object, address: str) -> SourceJob:
    """Return a job, or why it cannot be one of ours."""
    job_id = str(value.get("id"))
    problem = _problem(value)
    if problem:
        return SourceJob(job_id[:80], None, problem)
    name = _text(value.get("fine_tuned_model"))
    method = _method(value)
    numbers = _numbers(value, method)
    known = TrainingMethod(method)
    requested = _requested(numbers, known)
    return SourceJob(
        job_id,
        Job(
            id=job_id,
            model=str(value["model"]),
            base=str(value["model"]),
            base_digest="",
            parent_model=None,
            training_file=str(value["training_file"]),
            validation_file=_text(value.get("validation_file")),
            suffix=_suffix(value, name),
            seed=_integer(value.get("seed")) or 0,
            requested=requested,
            resolved=_resolved(requested),
            metadata=_metadata(value.get("metadata")),
            status=JobStatus(value["status"]),
            error=_error(value.get("error")),
            trained_tokens=_integer(value.get("trained_tokens")),
            fine_tuned_model=name,
            result_files=tuple(one for one in value.get("result_files") or () if valid_id(one)),
            created_at=_integer(value.get("created_at")) or 0,
            started_at=None,
            finished_at=_integer(value.get("finished_at")),
            integrations=_integrations(value.get("integrations")),
            method=known,
            imported_from=address,
        ),
    )


def event_of(value: Object, job_id: str) -> LogEntry:
    """Return a line of a job's story. One without an id gets one that is always the same."""
    message = _text(value.get("message")) or ""
    created_at = _integer(value.get("created_at")) or 0
    event_id = value.get("id")
    if not valid_id(event_id):
        told = f"{job_id} {created_at} {message}"
        event_id = "ftevent-" + hashlib.sha256(told.encode()).hexdigest()[:24]
    data = value.get("data")
    kind, level = value.get("type"), value.get("level")
    return LogEntry(
        id=str(event_id),
        created_at=created_at,
        level=next((one for one in _LEVELS if one == level), "info"),
        kind=next((one for one in _KINDS if one == kind), "message"),
        message=message,
        data=data if isinstance(data, dict) and data else None,
    )


def checkpoint_of(value: Object, job_id: str) -> Checkpoint | None:
    """Return a published checkpoint; None for one that lacks id, name or step."""
    name, step = _text(value.get("fine_tuned_model_checkpoint")), _integer(value.get("step_number"))
    if not valid_id(value.get("id")) or name is None or step is None:
        return None
    given = value.get("metrics")
    metrics = {
        key: number
        for key, number in (given if isinstance(given, dict) else {}).items()
        if _is_number(number)
    }
    return Checkpoint(
        id=str(value["id"]),
        job_id=job_id,
        step=step,
        model_name=name,
        metrics={**metrics, "step": step},
        created_at=_integer(value.get("created_at")) or 0,
    )


def usage_of(buckets: list[Object]) -> list[SourceUsage]:
    """Return the sums of a page's buckets, a model each, the most asked first."""
    sums: dict[str, list[int]] = {}
    for bucket in buckets:
        results = bucket.get("results") or bucket.get("result") or ()
        for result in results:
            total = sums.setdefault(_text(result.get("model")) or "unknown", [0, 0, 0])
            for place, key in enumerate(("num_model_requests", "input_tokens", "output_tokens")):
                total[place] += _integer(result.get(key)) or 0
    found = [SourceUsage(model, *total) for model, total in sums.items()]
    return sorted(found, key=lambda one: (-one.requests, one.model))


# ---- parts of a job


def _problem(value: Object) -> str:
    """Return why the job cannot be kept, or nothing."""
    for key in ("id", "training_file"):
        if not valid_id(value.get(key)):
            return f"its {key} {str(value.get(key))[:40]!r} is none that can be kept"
    if _text(value.get("model")) is None:
        return "it names no model"
    status, method = value.get("status"), _method(value)
    if status not in tuple(TERMINAL):
        return f"it is {status} there; run this again once it has ended, or cancel it there"
    if method not in tuple(TrainingMethod):
        return f"its method is '{method[:40]}', which tunery does not have"
    return ""


def _method(value: Object) -> str:
    method = value.get("method")
    kind = method.get("type") if isinstance(method, dict) else None
    return str(kind or TrainingMethod.SUPERVISED)


def _numbers(value: Object, method: str) -> Object:
    """Return the hyperparameters: within the method, or at the top level as in older jobs."""
    outer = value.get("method")
    inner = outer.get(method) if isinstance(outer, dict) else None
    found = inner.get("hyperparameters") if isinstance(inner, dict) else None
    found = found or value.get("hyperparameters")
    return found if isinstance(found, dict) else {}


def _requested(numbers: Object, method: TrainingMethod) -> RequestedHyperparameters:
    beta = numbers.get("beta")
    return RequestedHyperparameters(
        n_epochs=_integer(numbers.get("n_epochs")) or "auto",
        batch_size=_integer(numbers.get("batch_size")) or "auto",
        learning_rate_multiplier=_number(numbers.get("learning_rate_multiplier")) or "auto",
        beta=(_number(beta) or "auto") if method is TrainingMethod.DPO else None,
    )


def _resolved(requested: RequestedHyperparameters) -> Hyperparameters | None:
    """Return the numbers, where the service has told all of them."""
    epochs, size = requested.n_epochs, requested.batch_size
    rate, beta = requested.learning_rate_multiplier, requested.beta
    if (
        isinstance(epochs, str)
        or isinstance(size, str)
        or isinstance(rate, str)
        or isinstance(beta, str)
    ):
        return None
    return Hyperparameters(epochs, size, rate, beta)


def _suffix(value: Object, name: str | None) -> str | None:
    """Return the suffix: told by the live service, else the fourth part of the model's name."""
    suffix = _text(value.get("user_provided_suffix"))
    if suffix is None and name is not None:
        parts = name.split(":")
        suffix = parts[3] if len(parts) > 4 else None
    return suffix if suffix and _SUFFIX.fullmatch(suffix) else None


def _error(value: object) -> JobError | None:
    """Return why a job failed; an `error` of nothing but nulls is none."""
    if not isinstance(value, dict) or not value.get("message"):
        return None
    code = _text(value.get("code")) or "server_error"
    return JobError(code, str(value["message"]), _text(value.get("param")))


def _metadata(value: object) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return None
    return {str(key): str(one) for key, one in value.items()} or None


def _integrations(value: object) -> tuple[WandbIntegration, ...]:
    known = {one.name for one in fields(WandbIntegration)}
    found = []
    for one in value if isinstance(value, list) else ():
        wandb = one.get("wandb") if isinstance(one, dict) else None
        if isinstance(wandb, dict) and isinstance(wandb.get("project"), str):
            kept = {key: wandb[key] for key in known & wandb.keys()}
            tags = tuple(map(str, kept.pop("tags", None) or ()))
            found.append(WandbIntegration(**kept, tags=tags))
    return tuple(found)


# ---- values


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and _is_number(value) else None


def _integer(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and _is_number(value) else None

"""What `tunery import` prints, and writes as JSON: the plan, what came of it, the new trainings."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunery.cli.console import out, print_table

if TYPE_CHECKING:
    from tunery.domain.models import BaseModel
    from tunery.domain.tenants import Tenant
    from tunery.services.moving import Brought, Plan
    from tunery.services.retraining import Retraining

# A guess, where no job has ended on a base yet. docs/reference/speed.md measures 433 tokens a
# second for 135 million weights of two bytes on two cores; the work grows with the weights.
_ROUGH_BYTES_TOKENS_S = 433 * 2 * 135e6
_SHOWN = 20  # of what does not move


@dataclass(frozen=True, slots=True)
class Trained:
    """An imported job that was asked for, and the new job that was made of it."""

    planned: "Retraining"
    job_id: str | None


def line(text: str) -> None:
    """Print a line with another service's words in it: as text that moves no cursor."""
    out.print(plain(text), markup=False)


def plain(text: str) -> str:
    """Return text without control characters."""
    return "".join(one if one.isprintable() else "?" for one in text)


def size(count: int) -> str:
    """Return a number of bytes to read."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def duration(seconds: float) -> str:
    """Return a span of time to read: two figures of it matter."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def print_plan(plan: "Plan", tenant: "Tenant") -> None:
    """Print what is there, what comes, and what does not."""
    line(f"From {plan.source} into project {tenant.project_id} ({tenant.organization_slug})")
    out.print()
    moving = f"{len(plan.jobs)} jobs, {len(plan.files)} files ({size(plan.size_bytes)})"
    out.print(f"there         {len(plan.models)} tuned models")
    out.print(f"move in       {moving}")
    out.print(f"here already  {plan.jobs_here} jobs, {plan.files_here} files")
    if plan.jobs:
        out.print()
        rows = [
            (job.id, str(job.status), str(job.method), job.model, job.fine_tuned_model or "-")
            for job in plan.jobs
        ]
        print_table(
            ("job", "status", "method", "base", "model"),
            [tuple(map(plain, row)) for row in rows],
        )
    out.print("\nwill not move")
    for one in plan.left[:_SHOWN]:
        line(f"  {one.what}: {one.why}")
    if len(plan.left) > _SHOWN:
        out.print(f"  and {len(plan.left) - _SHOWN} more; --json has them all")
    if plan.other_files:
        told = ", ".join(f"{count} {purpose}" for purpose, count in plan.other_files.items())
        line(f"  files that are not for tuning: {told}")
    out.print("  weights: OpenAI gives them to nobody; the models are trained anew, by --tune")
    _print_usage(plan)


def _print_usage(plan: "Plan") -> None:
    if plan.usage is None:
        out.print("\nusage: not to be seen with this key; an admin key shows it (--admin-key-file)")
        return
    out.print("\nasked there in the last 30 days")
    rows = [
        (plain(one.model), str(one.requests), str(one.input_tokens), str(one.output_tokens))
        for one in plan.usage
    ]
    print_table(("model", "requests", "tokens in", "tokens out"), rows or [("-", "0", "0", "0")])


def print_waiting(count: int) -> None:
    """Say what is left to do until every old name answers."""
    if count:
        out.print(f"{count} imported model(s) do not answer yet; --tune all trains them anew.")


def print_retraining(planned: "list[Retraining]") -> None:
    """Print what training anew takes, in tokens, dollars of this service's prices, and time."""
    out.print()
    rows = []
    for one in planned:
        if one.base is None or one.numbers is None or one.account is None:
            rows.append((one.job.id, one.job.model, "-", "-", "-", "-", f"{one.standing}"))
            continue
        cost = f"${one.cost_nanodollars / 1e9:.4f}"
        tokens = f"{one.account.tokens} x {one.numbers.n_epochs}"
        rows.append(
            (one.job.id, one.job.model, one.base.name, tokens, cost, _time(one, one.base), "ready")
        )
    head = ("job", "old base", "new base", "tokens x epochs", "price here", "time", "")
    print_table(head, [tuple(map(plain, row)) for row in rows])
    for one in planned:
        if one.why:
            line(f"  {one.job.id}: {one.why}")


def _time(one: "Retraining", base: "BaseModel") -> str:
    if one.seconds is not None:
        return f"about {duration(one.seconds)}"
    weights = sum(path.stat().st_size for path in Path(base.path).glob("model*.safetensors"))
    return f"{duration(one.tokens * weights / _ROUGH_BYTES_TOKENS_S)}, a guess"


def as_json(plan: "Plan | None", brought: "Brought | None", trained: list[Trained]) -> bytes:
    """Return all of it as JSON, for programs."""
    value = {
        "plan": None if plan is None else _plan(plan),
        "brought": None if brought is None else asdict(brought),
        "trained": [_trained(one) for one in trained],
    }
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def _plan(plan: "Plan") -> dict[str, Any]:
    return {
        "source": plan.source,
        "models": [asdict(model) for model in plan.models],
        "jobs": [
            {
                "id": job.id,
                "status": job.status,
                "method": job.method,
                "model": job.model,
                "fine_tuned_model": job.fine_tuned_model,
            }
            for job in plan.jobs
        ],
        "jobs_here": plan.jobs_here,
        "files": [asdict(file) for file in plan.files],
        "files_here": plan.files_here,
        "left": [asdict(one) for one in plan.left],
        "other_files": dict(plan.other_files),
        "usage": None if plan.usage is None else [asdict(one) for one in plan.usage],
    }


def _trained(one: Trained) -> dict[str, Any]:
    planned = one.planned
    return {
        "imported_job": planned.job.id,
        "old_base": planned.job.model,
        "old_model": planned.job.fine_tuned_model,
        "standing": planned.standing,
        "why": planned.why,
        "base": None if planned.base is None else planned.base.name,
        "base_digest": None if planned.base is None else planned.base.digest,
        "hyperparameters": None if planned.numbers is None else asdict(planned.numbers),
        "training_tokens": planned.tokens,
        "cost_dollars": planned.cost_nanodollars / 1e9,
        "expected_seconds": planned.seconds,
        "job": one.job_id,
    }

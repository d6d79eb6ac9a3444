"""A job's runs in Weights & Biases: one for each of its integrations. Knows no job's row, no torch.

Runs go by the job's id, so that one that is taken up again goes on in the same place. wandb is told
what is passed here and nothing else: no environment, no code, no facts about the machine.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunery.domain.errors import Unavailable
from tunery.domain.jobs import StepMetrics
from tunery.domain.ports.tracking import TrackedEnd, TrackedRun

ENDED_BADLY = ("failed", "cancelled")
_QUIET: dict[str, Any] = {
    "init_timeout": 45.0,
    "console": "off",
    "silent": True,
    "symlink": False,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "program": "tunery",
    "host": "",
    "username": "",
    "email": "",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class WandbRuns:
    """The runs of one job, open until `close`."""

    def __init__(
        self,
        run: TrackedRun,
        *,
        folder: Path,
        online: bool,
        api_key: str | None,
        base_url: str | None,
    ) -> None:
        _set_environment(folder, api_key if online else None, base_url)
        try:
            import wandb  # noqa: PLC0415 - it reads its environment when imported
        except ImportError:
            raise Unavailable("the wandb package is not installed on this server") from None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = "online" if online else "offline"
        with _told():
            self._runs: list[Any] = [
                wandb.init(
                    id=run_id,
                    project=wanted.project,
                    entity=wanted.entity,
                    name=wanted.name or run.job_id,
                    tags=_distinct((*run.tags, *wanted.tags)),
                    config=run.config,
                    resume="allow",
                    reinit="create_new",
                    # Made anew for each: a run leaves its entity in them.
                    settings=wandb.Settings(mode=mode, root_dir=str(folder), **_QUIET),
                )
                for run_id, wanted in zip(run.run_ids, run.integrations, strict=True)
            ]

    def step(self, metrics: StepMetrics) -> None:
        """Report a step, under the names of its event."""
        values = metrics.told()
        step = values.pop("step")
        del values["total_steps"]
        with _told():
            for run in self._runs:
                run.log(values, step=step)

    def close(self, end: TrackedEnd | None) -> None:
        """Close the runs; without an end, whoever reported fell silent."""
        with _told():
            for run in self._runs:
                if end is not None:
                    run.summary.update(asdict(end))
                run.finish(exit_code=int(end is None or end.status in ENDED_BADLY))


def _set_environment(folder: Path, api_key: str | None, base_url: str | None) -> None:
    """Leave wandb no other settings than ours, and no other place to write to."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # to wandb's makers, of wandb's own errors
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ[name] = str(folder / "settings")  # `.wandb` would be taken for the runs' own
    if api_key is not None:
        os.environ["WANDB_API_KEY"] = api_key
    if base_url is not None:
        os.environ["WANDB_BASE_URL"] = base_url


def _distinct(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return each tag once, cut to the 64 characters that wandb takes."""
    return tuple(dict.fromkeys(tag[:64] for tag in tags))


@contextmanager
def _told() -> Iterator[None]:
    """Turn whatever wandb raises into one line for the job's owner; the log gets it whole."""
    try:
        yield
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        raise Unavailable(
            f"it could not be reached or refused the run ({type(error).__name__})"
        ) from None

"""The child process that reports a job to Weights & Biases."""

from tunery.domain.ports.tracking import TrackedRun
from tunery.settings import Settings
from tunery.training.tracking import WandbRuns


def build_reports(settings: Settings, run: TrackedRun) -> WandbRuns:
    """Return the job's runs, open; raise Unavailable where they cannot be had."""
    key = settings.wandb.api_key
    return WandbRuns(
        run,
        folder=settings.wandb_path,
        online=settings.wandb.mode == "online",
        api_key=None if key is None else key.get_secret_value(),
        base_url=settings.wandb.base_url,
    )

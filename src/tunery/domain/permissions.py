"""What lets a project use a model of another project of its organization."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CheckpointPermission:
    """A project may ask a model; only the model's owner can tune from it or delete it."""

    id: str
    owner_project_id: str
    model_name: str
    project_id: str
    created_at: int

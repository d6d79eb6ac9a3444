"""Another service that speaks OpenAI's API, and from which a project moves in. It is only read."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from tunery.domain.imports import SourceFile, SourceJob, SourceModel, SourceUsage
from tunery.domain.jobs import Checkpoint, LogEntry


class Source(Protocol):
    """Lists what there is. Raises SourceRefused where it may not, Unavailable after many tries."""

    @property
    def address(self) -> str:
        """Return the URL that it is known by."""

    def models(self) -> Sequence[SourceModel]:
        """Return the tuned models."""

    def jobs(self) -> Sequence[SourceJob]:
        """Return every job, oldest first."""

    def events(self, job_id: str) -> Sequence[LogEntry]:
        """Return a job's story, oldest line first."""

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """Return a job's published checkpoints, oldest first."""

    def files(self) -> Sequence[SourceFile]:
        """Return every file, oldest first."""

    def file(self, file_id: str) -> SourceFile | None:
        """Return a file, if it is still there."""

    def content(self, file_id: str) -> AbstractContextManager[Iterator[bytes]]:
        """Open a file's bytes; raises NotFound, and BrokenOff while they are read."""

    def usage(self, since: int) -> Sequence[SourceUsage] | None:
        """Return what was asked of each model since then; None where that may not be seen."""

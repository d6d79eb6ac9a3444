"""A stored file and what its validation found."""

from dataclasses import dataclass
from enum import StrEnum


class FilePurpose(StrEnum):
    """What a file is for, in OpenAI's words. Only the first six can be given at upload."""

    ASSISTANTS = "assistants"
    BATCH = "batch"
    FINE_TUNE = "fine-tune"
    VISION = "vision"
    USER_DATA = "user_data"
    EVALS = "evals"
    FINE_TUNE_RESULTS = "fine-tune-results"
    BATCH_OUTPUT = "batch_output"


UPLOAD_PURPOSES = tuple(
    purpose for purpose in FilePurpose if purpose not in ("fine-tune-results", "batch_output")
)
JSONL_PURPOSES = (FilePurpose.FINE_TUNE, FilePurpose.BATCH)


class FileStatus(StrEnum):
    """Where a file stands."""

    UPLOADED = "uploaded"  # kept; its lines are not checked yet
    PROCESSED = "processed"  # checked, and fit for its purpose
    ERROR = "error"  # checked, and not fit; status_details names the lines


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file's row. Its bytes are in the blob store under `blob_key`."""

    id: str
    filename: str
    purpose: FilePurpose
    size_bytes: int
    sha256: str
    blob_key: str
    status: FileStatus
    status_details: str | None
    created_at: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class LineError:
    """One line that cannot be trained on: its number (from 1), and what is wrong with it."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class FileReport:
    """What reading a training file found: `errors` is capped, `error_count` is not."""

    examples: int
    errors: tuple[LineError, ...]
    error_count: int

    def summary(self) -> str:
        """Return the bad lines in one text, with the count of those not listed."""
        listed = "; ".join(f"line {error.line}: {error.message}" for error in self.errors)
        hidden = self.error_count - len(self.errors)
        return f"{listed}; and {hidden} more" if hidden else listed

"""A stored file and what its validation found."""

from dataclasses import dataclass
from enum import StrEnum

from tunery.domain.errors import InvalidRequest


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
    ASSISTANTS_OUTPUT = "assistants_output"


MADE_PURPOSES = (
    FilePurpose.FINE_TUNE_RESULTS,
    FilePurpose.BATCH_OUTPUT,
    FilePurpose.ASSISTANTS_OUTPUT,
)
UPLOAD_PURPOSES = tuple(purpose for purpose in FilePurpose if purpose not in MADE_PURPOSES)
JSONL_PURPOSES = (FilePurpose.FINE_TUNE, FilePurpose.BATCH)
MAX_BATCH_BYTES = 200 * 2**20
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 30 * 24 * 3600


def upload_purpose(value: str) -> FilePurpose:
    """Return the purpose of a file that is to be uploaded; raise InvalidRequest for another."""
    return _purpose(value, UPLOAD_PURPOSES)


def known_purpose(value: str) -> FilePurpose:
    """Return a purpose that a file can have; raise InvalidRequest for another."""
    return _purpose(value, tuple(FilePurpose))


def _purpose(value: str, known: tuple[FilePurpose, ...]) -> FilePurpose:
    if value not in known:
        raise InvalidRequest(
            f"'{value[:80]}' is not one of {[str(one) for one in known]} - 'purpose'",
            param="purpose",
            code="invalid_value",
        )
    return FilePurpose(value)


def size_limit(purpose: FilePurpose | None, max_bytes: int) -> int:
    """Return how large a file for `purpose` may be where `max_bytes` is the most for any."""
    return min(max_bytes, MAX_BATCH_BYTES) if purpose is FilePurpose.BATCH else max_bytes


def expiry_of(purpose: FilePurpose, created_at: int, after_s: int | None) -> int | None:
    """Return when a file expires; files for batches do so after 30 days, as OpenAI's do."""
    if after_s is None and purpose is FilePurpose.BATCH:
        after_s = MAX_EXPIRY_S
    return None if after_s is None else created_at + after_s


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


class LineFormat(StrEnum):
    """What the lines of a training file are, in OpenAI's words."""

    CHAT = "fine-tune-chat"  # a conversation whose answers are learned
    COMPLETION = "fine-tune-completion"  # a prompt, and what is learned to follow it
    PREFERENCE = "fine-tune-preference"  # a conversation and two answers, one of them preferred


@dataclass(frozen=True, slots=True)
class FileReport:
    """What reading a training file found: `errors` is capped, `error_count` is not."""

    examples: int
    errors: tuple[LineError, ...]
    error_count: int
    line_format: LineFormat = LineFormat.CHAT

    def summary(self) -> str:
        """Return the bad lines in one text, with the count of those not listed."""
        listed = "; ".join(f"line {error.line}: {error.message}" for error in self.errors)
        hidden = self.error_count - len(self.errors)
        return f"{listed}; and {hidden} more" if hidden else listed

"""Every error that a caller can be told about. HTTP codes are added at the edge, nowhere else.

TuneryError
├── InvalidRequest           the request cannot be honoured as it stands
│   ├── ContextTooLong       the prompt and the answer do not fit the model's context
│   ├── TooLarge             the request has more bytes than are taken
│   └── UnsupportedMedia     the request's bytes are packed in a way that is not taken
├── Unauthenticated          no key, or one that is not ours
├── Forbidden                a key that may not do this
├── NotFound                 nothing under that id in this project
├── Conflict                 the object's state does not allow it
├── Overloaded               no room now; ask again
├── Unavailable              a part of the service does not answer
└── StorageFull              the disk took no more
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EIO, errno.EROFS, errno.ESTALE)  # what a failing or lost disk answers


class TuneryError(Exception):
    """Base of the tree: one line that says what was got, what was needed, what to do.

    `param` names the field at fault, `code` is OpenAI's machine-readable name: where there are any.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class InvalidRequest(TuneryError):
    """The request cannot be honoured as it stands."""


class ContextTooLong(InvalidRequest):
    """The prompt and the answer do not fit the model's context."""

    def __init__(self, context_tokens: int, prompt_tokens: int, answer_tokens: int) -> None:
        super().__init__(
            f"This model's maximum context length is {context_tokens} tokens. However, you"
            f" requested {prompt_tokens + answer_tokens} tokens ({prompt_tokens} in the messages,"
            f" {answer_tokens} in the completion). Please reduce the length of the messages or"
            " completion.",
            param="messages",
            code="context_length_exceeded",
        )


class TooLarge(InvalidRequest):
    """The request has more bytes than are taken."""


class UnsupportedMedia(InvalidRequest):
    """The request's bytes are packed in a way that is not taken."""


class Unauthenticated(TuneryError):
    """No key, or one that is not ours."""


class Forbidden(TuneryError):
    """A known key that may not do this."""


class NotFound(TuneryError):
    """Nothing under that id in this project; another project's id answers the same."""


class Conflict(TuneryError):
    """The object's state does not allow it."""


class Overloaded(TuneryError):
    """No room now; `retry_after_s` says when to ask again."""

    CODE = "server_is_overloaded"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message, code=self.CODE)
        self.retry_after_s = retry_after_s


class Unavailable(TuneryError):
    """A part of the service does not answer; `retry_after_s` says when to ask again."""

    def __init__(
        self, message: str, *, retry_after_s: int = 2, code: str | None = "service_unavailable"
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class StorageFull(TuneryError):
    """The disk took no more; nothing of the request was kept."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="insufficient_storage")


@contextmanager
def disk_errors_told(folder: Path) -> Iterator[None]:
    """Raise what the disk of `folder` answers as ours: it may be mended when tried again."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                f"The disk that holds {folder} is full; free some space and try again."
            ) from error
        if error.errno in _BROKEN:
            raise Unavailable(
                f"The disk that holds {folder} failed ({error.strerror}); look at its health and"
                " its mount, and try again.",
                code="storage_unavailable",
            ) from error
        raise

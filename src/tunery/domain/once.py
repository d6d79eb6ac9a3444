"""A request that is to be carried out once, however often it is sent."""

from dataclasses import dataclass

KEPT_S = 24 * 3600  # how long a key is remembered


@dataclass(frozen=True, slots=True)
class OnceKey:
    """An Idempotency-Key and what was asked under it, as digests: no body is kept."""

    key_digest: bytes
    request_digest: bytes


class AlreadyDone(Exception):
    """The same request was carried out before: `object_id` is what it made."""

    def __init__(self, object_id: str) -> None:
        super().__init__(object_id)
        self.object_id = object_id

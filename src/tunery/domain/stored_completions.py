"""A chat completion that is kept because its request said so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredCompletion:
    """A stored completion's row: the request as it was sent, and the object that was answered."""

    id: str
    model: str
    metadata: Mapping[str, str] | None
    request_id: str
    request: Mapping[str, Any]
    response: Mapping[str, Any]
    created_at: int

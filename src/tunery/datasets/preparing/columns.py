"""Which column of a table is what: guessed from names, or given."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from tunery.domain.errors import InvalidRequest

# Names as tables have them, the likeliest first; compared in small letters, letters alone.
_NAMES: dict[str, tuple[str, ...]] = {
    "prompt": (
        *("prompt", "question", "user", "human", "query", "request", "instruction", "input"),
        *("usermessage", "message", "ticket", "email", "source", "context", "q", "text", "frage"),
    ),
    "completion": (
        *("completion", "answer", "assistant", "response", "output", "reply", "gpt", "bot"),
        *("ideal", "expected", "target", "label", "category", "intent", "class", "classification"),
        *("sentiment", "summary", "translation", "a", "antwort"),
    ),
    "system": ("system", "systemprompt", "systemmessage", "developer"),
    "preferred": ("preferred", "chosen", "preferredoutput", "preferredcompletion", "win"),
    "non_preferred": (
        *("nonpreferred", "rejected", "nonpreferredoutput", "nonpreferredcompletion", "lose"),
    ),
}


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The column of each part of a line. `sure` is whether names said so, and not their order.

    A line has a completion, or a preferred answer and another one; it may have no prompt.
    """

    prompt: str | None = None
    completion: str | None = None
    system: str | None = None
    preferred: str | None = None
    non_preferred: str | None = None
    sure: bool = field(default=True, compare=False)

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield each part with its column, where it has one."""
        for one in PARTS:
            column = getattr(self, one)
            if column is not None:
                yield one, column

    @property
    def is_preference(self) -> bool:
        """Whether a row has two answers."""
        return self.preferred is not None and self.non_preferred is not None

    def left_out(self, columns: Sequence[str]) -> list[str]:
        """Return the columns that no part of a line comes from."""
        used = {column for _, column in self.named()}
        return [column for column in columns if column not in used]


PARTS = tuple(one.name for one in fields(ColumnMapping) if one.name != "sure")


def guess(columns: Sequence[str]) -> ColumnMapping | None:
    """Return what the names say, or, of two columns, their order; None where nothing does."""
    found: dict[str, str] = {}
    plain = {column: re.sub(r"[\W_\d]+", "", column.casefold()) for column in columns}
    for part, names in _NAMES.items():
        for name in names:
            column = next((c for c in columns if plain[c] == name), None)
            if column is not None and column not in found.values():
                found[part] = column
                break
    answered = "completion" in found or {"preferred", "non_preferred"} <= set(found)
    if answered and ("prompt" in found or len(columns) == 1):
        if "completion" in found:
            found.pop("preferred", None)
            found.pop("non_preferred", None)
        return ColumnMapping(**found)
    rest = [column for column in columns if column != found.get("system")]
    if len(rest) == 2:
        return ColumnMapping(rest[0], rest[1], found.get("system"), sure=False)
    return None


def given(columns: Sequence[str], parts: Mapping[str, str | None]) -> ColumnMapping | None:
    """Return the columns that were named; None where none was. Raise where one is not there."""
    named = {part: column for part, column in parts.items() if column is not None}
    for part, column in named.items():
        if column not in columns:
            raise InvalidRequest(
                f"Got --{part.replace('_', '-')} {column[:60]!r}; the columns are"
                f" {', '.join(columns)[:300]}."
            )
    if not named:
        return None
    guessed = guess(columns)
    for part, column in guessed.named() if guessed is not None and guessed.sure else ():
        if part not in named and column not in named.values():
            named[part] = column
    if "completion" in named:  # what was guessed beside it
        for part in ("preferred", "non_preferred"):
            if parts.get(part) is None:
                named.pop(part, None)
    mapping = ColumnMapping(**named)
    if mapping.completion is None and not mapping.is_preference:
        raise InvalidRequest(
            "No column holds what is to be learned; name it with --completion, or with"
            f" --preferred and --non-preferred. The columns are {', '.join(columns)[:300]}."
        )
    return mapping

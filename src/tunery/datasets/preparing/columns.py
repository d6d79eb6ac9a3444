"""Which column of a table is what: guessed from names, or given."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from tunery.datasets.preparing.printable import printable
from tunery.datasets.reader import short
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
_ANSWERS = ("completion", "preferred", "non_preferred")


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The column of each part of a line.

    A line has a completion, or a preferred answer and another one; it may have no prompt.
    """

    prompt: str | None = None
    completion: str | None = None
    system: str | None = None
    preferred: str | None = None
    non_preferred: str | None = None

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


PARTS = tuple(one.name for one in fields(ColumnMapping))


def listed(columns: Sequence[str]) -> str:
    """Return columns as a message names them."""
    return printable(", ".join(columns))[:300]


def guess(columns: Sequence[str]) -> ColumnMapping | None:
    """Return what the names say, or, of two columns, their order; None where nothing does."""
    named = _by_names(columns)
    if named is not None:
        return named
    system = _found(columns).get("system")
    rest = [column for column in columns if column != system]
    return ColumnMapping(rest[0], rest[1], system) if len(rest) == 2 else None


def _by_names(columns: Sequence[str]) -> ColumnMapping | None:
    found = _found(columns)
    if "completion" in found:
        found = {part: found[part] for part in found if part not in _ANSWERS[1:]}
    answered = "completion" in found or all(part in found for part in _ANSWERS[1:])
    if not answered or ("prompt" not in found and len(columns) > 1):
        return None
    return ColumnMapping(**found)


def _found(columns: Sequence[str]) -> dict[str, str | None]:
    """Return the columns whose names are known, by part; no column has two parts."""
    found: dict[str, str | None] = {}
    plain = {column: re.sub(r"[\W_\d]+", "", column.casefold()) for column in columns}
    for part, names in _NAMES.items():
        for name in names:
            column = next((c for c in columns if plain[c] == name), None)
            if column is not None and column not in found.values():
                found[part] = column
                break
    return found


def given(columns: Sequence[str], parts: Mapping[str, str | None]) -> ColumnMapping | None:
    """Return the columns that were named; None where none was. Raise where one is not there."""
    named: dict[str, str | None] = {
        part: column for part, column in parts.items() if column is not None
    }
    for part, column in named.items():
        if column not in columns:
            option = "system-column" if part == "system" else part.replace("_", "-")
            raise InvalidRequest(
                f"Got --{option} {short(column)}; the columns are {listed(columns)}."
            )
    if not named:
        return None
    for part, column in _found(columns).items():
        if part not in named and column not in named.values():
            named[part] = column
    if named.get("completion") and any(named.get(part) for part in _ANSWERS[1:]):
        # The kind of answer that was named stays, what was guessed beside it goes.
        stays = parts.get("completion") is not None
        named = {
            p: c for p, c in named.items() if p not in (_ANSWERS[1:] if stays else _ANSWERS[:1])
        }
    mapping = ColumnMapping(**named)
    if mapping.completion is None and not mapping.is_preference:
        raise InvalidRequest(
            "No column holds what is to be learned; name it with --completion, or with"
            f" --preferred and --non-preferred. The columns are {listed(columns)}."
        )
    return mapping

"""An entry of the tables: a field, what is sent in it, and what has to come of it."""

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Required, is_typeddict

import typing_extensions


class _Absent(Enum):
    """Not a bare object: a copy of an Enum's member is the member."""

    ABSENT = "not sent"


ABSENT: Any = _Absent.ABSENT
"""Stands for a field that is not sent."""

Encoding = Literal["json", "query", "form"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered with: `value` is its JSON object."""

    status: int
    content_type: str
    text: str
    value: Any


Shows = Callable[[Answer, Answer], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Honoured:
    """A field that does what it says.

    Two requests are sent that differ in the field alone, with `value` and with `other`; `shows`
    sees both answers, in this order, and says whether the field can be seen to work. Where an
    answer cannot show it, `proof` names the test that does. Each of `wrong` is refused by name.
    """

    value: Any
    other: Any = ABSENT
    shows: Shows | None = None
    proof: str = ""
    wrong: tuple[Any, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    values: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A field that is refused by its name; `neutral` are the values that ask for nothing."""

    value: Any
    neutral: tuple[Any, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosed:
    """A field that is taken and not acted on, as each answer says: `says` sees it say so.

    Each of `wrong` is refused by name.
    """

    value: Any
    says: Callable[[Answer], bool]
    wrong: tuple[Any, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    values: str = ""


Probe = Honoured | Refused | Disclosed


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A request: where its fields are listed, a valid one, and an entry for each field.

    `params` is the SDK's TypedDict, or None for a request without fields. `whole` are fields whose
    parts are not listed one by one, with the reason. Names in braces, in the path and in values,
    stand for ids of the live server. `beyond` are fields that are taken although the SDK's types do
    not know them. `undo` is the request that follows each one that was taken;
    `{id}` in it is the id of what was made. `admin` requests come with an admin key. `note` is what
    the page says besides.

    A path names a field: `a.b`, `a[].b` for each item of a list, and `a[]<kind>` for items whose
    `type` is that kind, as a whole.
    """

    method: str
    path: str
    params: Any = None
    base: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Probe] = field(default_factory=dict)
    encoding: Encoding = "json"
    whole: Mapping[str, str] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()
    undo: str = ""
    admin: bool = False
    note: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def listed(self) -> list[str]:
        """Return the fields that an entry is needed for: the SDK's, then those beyond them.

        The parts of a field are listed instead of it, unless it is refused whole.
        """
        known = [] if self.params is None else list(self._listed(self.params, ""))
        return [*known, *self.beyond]

    def _listed(self, params: Any, prefix: str) -> Iterator[str]:
        for name, hint in _hints(params).items():
            mark = "[]" if _is_list(hint) else ""
            inner = list(_typed_dicts(hint))
            path = f"{prefix}{name}"
            # An entry of its own for a whole list is one for its parts too, if it refuses them.
            if inner and not isinstance(self.fields.get(path), Refused) and path not in self.whole:
                if path in self.fields:
                    yield path
                seen: set[str] = set()
                for one in inner:
                    item = f"{path}{mark}<{_kind(one)}>"
                    parts = [item] if item in self.fields else self._listed(one, f"{path}{mark}.")
                    found = [part for part in parts if part not in seen]
                    seen.update(found)
                    yield from found
            else:
                yield path

    def required(self) -> list[str]:
        """Return the fields at the top that a request needs."""
        if self.params is None:
            return []
        # Not __required_keys__ alone: it does not see through annotations that are strings.
        hints = typing_extensions.get_type_hints(self.params, include_extras=True)
        origins: dict[str, Any] = {name: typing.get_origin(hint) for name, hint in hints.items()}
        marked = {name for name, origin in origins.items() if origin is Required}
        return sorted(marked | self.params.__required_keys__)


def _hints(params: Any) -> dict[str, Any]:
    return typing_extensions.get_type_hints(params, include_extras=False)


def _kind(params: Any) -> str | None:
    """Return what a TypedDict's `type` always is, if it is always the same."""
    kinds = [
        value
        for part in _parts(_hints(params).get("type"))
        if typing.get_origin(part) is Literal
        for value in typing.get_args(part)
    ]
    return kinds[0] if len(kinds) == 1 else None


def _parts(hint: Any) -> Iterator[Any]:
    """Yield the types that a type is made of: members of unions, items of lists."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType, Required, typing.Annotated):
        for one in typing.get_args(hint):
            yield from _parts(one)
    else:
        yield hint


def _is_list(hint: Any) -> bool:
    return any(_item(part) is not None for part in _parts(hint))


def _item(hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, typing.Iterable) and origin is not dict:
        arguments = typing.get_args(hint)
        return arguments[0] if len(arguments) == 1 else None
    return None


def _typed_dicts(hint: Any) -> Iterator[Any]:
    for part in _parts(hint):
        item = _item(part)
        if item is not None:
            yield from _typed_dicts(item)
        elif is_typeddict(part) or typing_extensions.is_typeddict(part):
            yield part


# ---- requests


def put(request: dict[str, Any], path: str, value: Any) -> None:
    """Set a field of a request by its path, in the first item of each list on the way."""
    node: Any = request
    *steps, last = _without_kinds(path).split(".")
    for step in steps:
        name, is_list = step.removesuffix("[]"), step.endswith("[]")
        if not isinstance(node.get(name), list if is_list else dict):
            if value is ABSENT:
                return
            node[name] = [{}] if is_list else {}
        node = node[name][0] if is_list else node[name]
    if last.endswith("[]"):
        node[last.removesuffix("[]")] = [value]
    elif value is ABSENT:
        node.pop(last, None)
    else:
        node[last] = value


def named(param: str | None, path: str) -> bool:
    """Whether an error's `param` names the field at `path`, or a part of it."""
    if param is None:
        return False
    given = param.replace("[", ".").replace("]", "").split(".")
    wanted = _without_kinds(path).replace("[]", ".0").split(".")
    return given[: len(wanted)] == wanted


def _without_kinds(path: str) -> str:
    return re.sub("<[^>]*>", "", path)


# ---- what answers show


def echoes(*path: str | int, value: Any = ABSENT) -> Shows:
    """Return a check that the answer has at `path` what was sent, and without it something else."""

    def at(answer: Answer) -> Any:
        found = answer.value
        for step in path:
            found = found[step]
        return found

    def shows(sent: Answer, other: Answer) -> bool:
        return at(sent) != at(other) and (value is ABSENT or at(sent) == value)

    return shows

"""Functions that a model may call, and the form in which a base model writes its calls.

A form is text around a call's name and arguments, and says what grammar an answer follows. It
knows neither messages nor the wire.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Choice = Literal["none", "auto", "required"]
# Arguments are written as templates write them, and as json.dumps does.
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Function:
    """A function: `parameters` is a JSON schema of its arguments; None takes none.

    A `strict` function is never called with arguments that break its schema; with None, not where
    the schema can be followed. `param` is where the schema stands in the request, for errors.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = False
    param: str = "parameters"

    def as_tool(self) -> dict[str, Any]:
        """Return it as templates are given it: OpenAI's form, what was left open left out."""
        said = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {
            "type": "function",
            "function": {key: value for key, value in said.items() if value is not None},
        }

    def schema(self) -> dict[str, Any]:
        """Return the schema of its arguments, which are an object whatever else they are."""
        if self.parameters is None:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {**self.parameters, "type": "object"}


@dataclass(frozen=True, slots=True)
class Calling:
    """What a model is told of, what of that it may call now, and whether it has to.

    `several` allows more than one call in an answer.
    """

    functions: tuple[Function, ...]
    allowed: tuple[str, ...]
    choice: Choice
    several: bool = True

    def callable(self) -> tuple[Function, ...]:
        """Return the functions that may be called."""
        return tuple(one for one in self.functions if one.name in self.allowed)

    def follows_schema(self, function: Function) -> bool:
        """Return whether the arguments of a call of it are held to its schema.

        A call that is free is, as training left it, held to an object only: a schema would dictate
        the order of its members too.
        """
        return function.strict is not False or self.choice == "required"


@dataclass(frozen=True, slots=True)
class CallForm:
    r"""Calls as a template writes them: opening NAME between ARGUMENTS, and so on, and closing.

    `joint` stands between a call's arguments and the next one's name; None where there can be only
    one. `after_text` says that text may stand before the first call. `special` are the spellings
    of special tokens in it, with their ids: the text of an answer does not show those.
    """

    opening: str
    between: str
    joint: str | None
    closing: str
    after_text: bool = True
    special: tuple[tuple[str, int], ...] = ()

    def shown(self) -> "CallForm":
        """Return the form as it stands in the text of an answer."""
        joint = None if self.joint is None else self._visible(self.joint)
        visible = [self._visible(part) for part in (self.opening, self.between, self.closing)]
        return CallForm(visible[0], visible[1], joint, visible[2], self.after_text)

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """Return calls, each a name and arguments; nothing for none."""
        if not calls:
            return ""
        joint = self.joint or ""
        return (
            self.opening
            + joint.join(f"{name}{self.between}{arguments}" for name, arguments in calls)
            + self.closing
        )

    @property
    def marker(self) -> str:
        """Return the text that no answer has but where a call begins: "<tool_call>", say."""
        opening = self._visible(self.opening)
        return re.split(r"[{\[]", opening, maxsplit=1)[0].rstrip() or opening

    def grammar(
        self,
        calling: Calling,
        schemas: Mapping[str, Mapping[str, Any]],
        answer: str | None = None,
    ) -> str:
        """Return what an answer follows, in llguidance's Lark.

        `schemas` are those of the arguments, by name. Free is all text without the marker; once
        that stands, a whole call follows. An answer that does not call follows `answer`, if given.
        """
        if calling.choice == "none":
            return answer or "\n".join(["start: TEXT?", self._text_rule()])
        calls = f"{self._literal(self.opening)} call{self._repeated(calling.several)}"
        calls += f" {self._literal(self.closing)}"
        if calling.choice == "required":
            rules = [f"start: {calls}"]
        elif answer is not None:
            rules = [f"start: answer | {calls}", f"answer: %lark {{\n{answer}\n}}"]
        else:
            rules = self._free(calls)
        bodies: dict[str, str] = {}  # a rule for each schema: many functions often share one
        ways = []
        for function in calling.callable():
            body = _json_rule(schemas[function.name])
            rule = bodies.setdefault(body, f"arguments{len(bodies)}")
            ways.append(f"{json.dumps(function.name + self.between)} {rule}")
        rules += [f"{rule}: {body}" for body, rule in bodies.items()]
        return "\n".join([*rules, "call: " + " | ".join(ways)])

    def _free(self, calls: str) -> list[str]:
        """Return rules for text, or calls, or both where the form allows it."""
        if not self.after_text:
            return [f"start: TEXT? | {calls}", self._text_rule()]
        marker = self.marker
        if not self.opening.startswith(marker):  # but with a special token, which no text is
            return [f"start: TEXT? | TEXT? {calls}", self._text_rule()]
        rest = calls.removeprefix(self._literal(self.opening))
        return [
            f"start: TEXT? | head {self._literal(self.opening[len(marker) :])}{rest}",
            f"head[lazy]: /(?s:.*){_regex(marker)}/",
            self._text_rule(),
        ]

    def _text_rule(self) -> str:
        before = "(?s:.*)" if self.after_text else ""
        return f"TEXT: /(?s:.+)/ & ~/{before}{_regex(self.marker)}(?s:.*)/"

    def _repeated(self, several: bool) -> str:
        return f" ({self._literal(self.joint)} call)*" if several and self.joint else ""

    def _visible(self, text: str) -> str:
        for spelled, _ in self.special:
            text = text.replace(spelled, "")
        return text

    def _literal(self, text: str) -> str:
        """Return text in Lark: strings, and special tokens by their ids."""
        ids = dict(self.special)
        if not ids:
            return json.dumps(text) if text else ""
        parts = re.split("(" + "|".join(map(re.escape, ids)) + ")", text)
        return " ".join(
            f"<[{ids[part]}]>" if part in ids else json.dumps(part) for part in parts if part
        )


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """Return the grammar of arguments alone."""
    return f"start: {_json_rule(schema)}"


def _json_rule(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': _STYLE})}"


def _regex(text: str) -> str:
    """Return a regular expression that is nothing but this text."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def training_functions(line: Mapping[str, Any]) -> tuple[Function, ...]:
    """Return the functions that a line of a training file tells of."""
    defined = [tool["function"] for tool in line.get("tools") or ()]
    return tuple(map(function_of, defined or line.get("functions") or ()))


def function_of(value: Mapping[str, Any]) -> Function:
    """Return a function from its definition."""
    return Function(
        name=value["name"],
        description=value.get("description"),
        parameters=value.get("parameters"),
        strict=bool(value.get("strict")),
    )


def arguments_object(text: str) -> dict[str, Any] | None:
    """Return a call's arguments as an object, or None where the text is none."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        text.encode()
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


# How calls are written for a base model whose template knows none.
PLAIN = CallForm(
    opening='<tool_call>\n{"name": "',
    between='", "arguments": ',
    joint='}\n</tool_call>\n<tool_call>\n{"name": "',
    closing="}\n</tool_call>",
)

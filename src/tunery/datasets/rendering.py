"""Chat messages to token ids, and the mask of what is learned.

The template is rendered with a placeholder in the place of each message's content. Its own text
is tokenized with control tokens, each content without: what a user writes can never become a
control token, whatever it spells, and the supervised span is exact by construction. What stands
inside the template's own text (a tool's description, an argument) has a placeholder too where it
could spell one. Training and serving both render here, so what was trained is what is prompted.
"""

import datetime
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import orjson
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunery import __version__
from tunery.datasets.call_form import probe_call_form, tool_marks
from tunery.datasets.completion_pairs import is_pair, pair_ids
from tunery.datasets.conversation import Call, Turn, turns_of
from tunery.datasets.tokenizer import Spellings, TextTokenizer
from tunery.datasets.tool_prompt import with_tools
from tunery.datasets.tools import PLAIN, Function, arguments_object, training_functions
from tunery.domain.errors import InvalidRequest

# Private-use characters around a number: no template writes these by itself. The first is another
# one where the placeholder stands in a JSON string.
_BARE, _IN_JSON = "\ue0f1", "\ue0f3"
_PLACEHOLDER = re.compile("([\ue0f1\ue0f3])([0-9]+)\ue0f2")
_REMEMBERED = 128  # forms of conversations that the template was asked for
_RECENT, _REMEMBERED_CHARACTERS = 16, 65_536  # contents of a training file, and the longest
_PRIVATE = re.compile("[\ue0f1-\ue0f3]")


class _GenerationBlocks(Extension):
    """Takes `{% generation %}` blocks, which some templates mark answers with, as their content."""

    tags = {"generation"}  # noqa: RUF012 - read by jinja2, which declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the block's statements."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids, and for each whether it is to be learned."""

    token_ids: list[int]
    supervised: list[bool]


@dataclass(frozen=True, slots=True)
class _Masked:
    """What stands behind a placeholder: a turn's content, the name of its first call, or a value.

    `turn` is None for a value, and for a name that does not begin its turn.
    """

    text: str
    turn: int | None = None
    is_content: bool = False


@dataclass(slots=True)
class _Run:
    """Text that is tokenized at once: a turn's content, or the template's own.

    `parts` say of each whether it may spell control tokens. `turn` is the one that begins with it.
    """

    parts: list[tuple[str, bool]] = field(default_factory=list)
    turn: int | None = None
    is_content: bool = False


class ChatRenderer:
    """Renders with one base model's own template and tokenizer.

    A template that takes tools, and writes calls so that they can be read back, is given them. For
    any other, they are written into the messages as datasets/tool_prompt.py says.
    """

    def __init__(self, tokenizer: TextTokenizer, template: str, variables: Mapping[str, str]):
        self.tokenizer = tokenizer
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationBlocks],
        )
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        environment.filters["tojson"] = _to_json
        self._template = environment.from_string(template)
        self._variables = dict(variables)
        made_of = [__version__, template, self._variables, tokenizer.digest]
        self.digest = hashlib.sha256(orjson.dumps(made_of)).hexdigest()
        """Of all that the ids of given messages depend on, in hex."""
        self._tells_time = "strftime_now" in template
        self._render_plain = lru_cache(_REMEMBERED)(self._rendered_plain)
        # Lines share a system prompt, and the two sides of a preference all but the answer.
        self._recent_ids = lru_cache(_RECENT)(tokenizer.text_ids)
        self._takes_tools = False
        self._takes_objects = True  # arguments: as an object, or else as JSON text
        self.call_form = PLAIN
        if "tools" in find_undeclared_variables(environment.parse(template)):
            self._find_call_form()

    @classmethod
    def load(cls, folder: Path) -> "ChatRenderer":
        """Return the renderer of a model's folder in Hugging Face layout."""
        config = json.loads((folder / "tokenizer_config.json").read_text())
        file = folder / "chat_template.jinja"
        template = file.read_text() if file.is_file() else config.get("chat_template")
        if not isinstance(template, str):
            raise ValueError(
                f"{folder} has no chat template; put one beside the weights as chat_template.jinja"
            )
        variables = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in config.items()
            if name.endswith("_token") and isinstance(value, str | dict)
        }
        return cls(TextTokenizer(folder), template, variables)

    def prompt(
        self, messages: Sequence[Mapping[str, Any]], functions: Sequence[Function] = ()
    ) -> list[int]:
        """Return the ids of a conversation up to where the assistant is to answer."""
        _, runs = self._rendered(messages, functions, generate=True)
        return [token_id for run in runs for token_id in self._ids(run)]

    def line(self, value: Mapping[str, Any]) -> Rendered:
        """Return a line of a training file, which was checked, as an example."""
        if is_pair(value):
            prompt, learned = pair_ids(value, self.tokenizer)
            mask = [False] * len(prompt) + [True] * len(learned)
            return Rendered(prompt + learned, mask)
        return self.example(value["messages"], training_functions(value))

    def example(
        self, messages: Sequence[Mapping[str, Any]], functions: Sequence[Function] = ()
    ) -> Rendered:
        """Return a training example: every assistant message of weight 1 is to be learned.

        Learned are its content, its calls, and the token that ends its turn, so that the model
        stops there.
        """
        ids: list[int] = []
        mask: list[bool] = []
        learning = False
        turns, runs = self._rendered(messages, functions, generate=False)
        for run in runs:
            text = run.parts[0][0]
            if run.is_content and len(text) <= _REMEMBERED_CHARACTERS:
                own = self._recent_ids(text)
            else:
                own = self._ids(run)
            if run.turn is not None:
                learning = turns[run.turn].learned
            learned = len(own) if learning else 0
            if learning and not run.is_content:
                stop = next((i for i, t in enumerate(own) if t in self.tokenizer.eos_ids), None)
                if stop is None:
                    raise InvalidRequest("The chat template does not end an assistant's turn.")
                learned = stop + 1
            learning = learning and run.is_content
            ids += own
            mask += [True] * learned + [False] * (len(own) - learned)
        return Rendered(ids, mask)

    def _rendered(
        self,
        messages: Sequence[Mapping[str, Any]],
        functions: Sequence[Function],
        *,
        generate: bool,
    ) -> tuple[list[Turn], list[_Run]]:
        """Return a conversation's turns, and the pieces that are tokenized one by one."""
        turns = turns_of(messages)
        try:
            if self._takes_tools:
                return turns, self._runs(turns, functions, generate=generate)
            turns = with_tools(turns, functions)
            return turns, self._runs(turns, (), generate=generate)
        except RecursionError:
            raise InvalidRequest(
                "A function's parameters, or a call's arguments, are nested too deeply.",
                param="messages",
            ) from None

    def _ids(self, run: _Run) -> list[int]:
        if run.is_content:
            return self.tokenizer.text_ids(run.parts[0][0])
        ids = []
        for trusted, parts in itertools.groupby(run.parts, key=lambda part: part[1]):
            text = "".join(part[0] for part in parts)
            ids += self.tokenizer.template_ids(text) if trusted else self.tokenizer.text_ids(text)
        return ids

    def _runs(
        self, turns: Sequence[Turn], functions: Sequence[Function], *, generate: bool
    ) -> list[_Run]:
        masks = _Masks(self.tokenizer.control)
        messages = [self._message(number, turn, masks) for number, turn in enumerate(turns)]
        tools = [masks.guarded(one.as_tool()) for one in functions]
        text = self._text(messages, tools, generate=generate)
        first, *rest = _PLACEHOLDER.split(text)
        runs, begun = [_Run([(first, True)])], []
        for kind, number, after in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            masked = masks.values[int(number)]
            value = masked.text
            if kind == _IN_JSON:
                value = json.dumps(value, ensure_ascii=False)[1:-1]
            begun += [] if masked.turn is None else [masked.turn]
            if masked.is_content:
                runs += [_Run([(value, False)], masked.turn, is_content=True), _Run()]
            else:
                if masked.turn is not None:
                    runs.append(_Run(self._cut_opening(runs[-1]), masked.turn))
                runs[-1].parts.append((value, not self.tokenizer.control.touched_by(value)))
            runs[-1].parts.append((after, True))
        if begun != list(range(len(turns))):
            raise _no_place(turns)
        return runs

    def _cut_opening(self, run: _Run) -> list[tuple[str, bool]]:
        """Take what begins a turn's calls off the text before it."""
        text, trusted = run.parts.pop()
        opening = self.call_form.opening
        if not text.endswith(opening):
            raise InvalidRequest(
                "The model's chat template has no place for these tool calls.", param="messages"
            )
        run.parts.append((text.removesuffix(opening), trusted))
        return [(opening, True)]

    def _message(self, number: int, turn: Turn, masks: "_Masks") -> dict[str, Any]:
        """Return a turn as the template is given it."""
        message: dict[str, Any] = {"role": turn.role, "content": ""}
        if turn.content or not turn.calls:
            message["content"] = masks.put(_Masked(turn.content, number, is_content=True))
            if turn.calls and not self.call_form.after_text:
                raise InvalidRequest(
                    "The model's chat template has no place for text beside tool calls.",
                    param="messages",
                )
        if turn.calls:
            calls = [self._call(call, masks) for call in turn.calls]
            if not turn.content:
                calls[0]["function"]["name"] = masks.put(_Masked(turn.calls[0].name, number))
            message["tool_calls"] = calls
        for name, value in (("tool_call_id", turn.call_id), ("name", turn.name)):
            if value is not None:
                message[name] = masks.guarded(value)
        return message

    def _call(self, call: Call, masks: "_Masks") -> dict[str, Any]:
        value = arguments_object(call.arguments)
        arguments: Any = call.arguments if value is None else value
        if value is not None and not self._takes_objects:
            arguments = json.dumps(value, ensure_ascii=False)
        function = {"name": call.name, "arguments": arguments}
        whole = {"id": call.id, "type": "function", "function": function}
        guarded: dict[str, Any] = masks.guarded(whole)
        return guarded

    def _text(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, generate: bool
    ) -> str:
        """Return what the template makes of messages.

        With a placeholder for every content, conversations of as many turns look alike to it.
        """
        turns = tuple((message["role"], message["content"]) for message in messages)
        if tools or self._tells_time or any(len(message) > 2 for message in messages):
            return self._made_by_template(messages, tools, generate)
        return self._render_plain(turns, generate)

    def _rendered_plain(self, turns: Sequence[tuple[str, str]], generate: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        return self._made_by_template(messages, [], generate)

    def _made_by_template(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], generate: bool
    ) -> str:
        given: dict[str, Any] = {"tools": tools} if tools else {}
        try:
            return self._template.render(
                **self._variables, **given, messages=messages, add_generation_prompt=generate
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {error}", param="messages"
            ) from None

    def _find_call_form(self) -> None:
        """Look how the template writes calls: with arguments as an object, or as text."""
        for as_object in (True, False):
            self._takes_objects = as_object
            form = probe_call_form(self._text, self.tokenizer, as_object=as_object)
            if form is not None:
                self.call_form, self._takes_tools = form, True
                self.tokenizer.reserve(tool_marks(self._text, self.tokenizer, as_object=as_object))
                return


class _Masks:
    """The placeholders of one rendering, and what stands behind them."""

    def __init__(self, control: Spellings) -> None:
        self.values: list[_Masked] = []
        self._control = control

    def put(self, masked: _Masked) -> str:
        """Return a new placeholder."""
        self.values.append(masked)
        return f"{_BARE}{len(self.values) - 1}\ue0f2"

    def guarded(self, value: Any) -> Any:
        """Return a value of JSON with placeholders for the texts that are not safe in it."""
        if isinstance(value, str):
            unsafe = self._control.touched_by(value) or _PRIVATE.search(value)
            return self.put(_Masked(value)) if unsafe else value
        if isinstance(value, list):
            return [self.guarded(one) for one in value]
        if isinstance(value, dict):
            return {self.guarded(key): self.guarded(one) for key, one in value.items()}
        return value


def _no_place(turns: Sequence[Turn]) -> InvalidRequest:
    return InvalidRequest(
        "The model's chat template has no place for one of these messages; got roles"
        f" {', '.join(turn.role for turn in turns)[:200]}.",
        param="messages",
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now(datetime.UTC).strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as transformers' filter of the name does."""
    text = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    return text.replace(_BARE, _IN_JSON)

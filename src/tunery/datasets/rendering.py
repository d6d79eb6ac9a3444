"""Chat messages to token ids, and the mask of what is learned.

The template is rendered with a placeholder in the place of each message's content. Its own text
is tokenized with special tokens, each content without: what a user writes can never become a
control token, whatever it spells, and the supervised span is exact by construction. Training and
serving both render here, so what was trained is what is prompted.
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import InvalidRequest

# Private-use characters around a number: no template writes these by itself.
_PLACEHOLDER = re.compile("\ue0f1([0-9]+)\ue0f2")


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


class ChatRenderer:
    """Renders with one base model's own template and tokenizer."""

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

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of a conversation up to where the assistant is to answer."""
        ids: list[int] = []
        for text, message in self._pieces(messages, generate=True):
            ids += self.tokenizer.template_ids(text)
            if message is not None:
                ids += self.tokenizer.text_ids(plain_text(message["content"]))
        return ids

    def example(self, messages: Sequence[Mapping[str, Any]]) -> Rendered:
        """Return a training example: every assistant message of weight 1 is to be learned.

        Learned are its content and the token that ends its turn, so that the model stops there.
        """
        ids: list[int] = []
        mask: list[bool] = []
        ends_turn = False
        for text, message in self._pieces(messages, generate=False):
            own = self.tokenizer.template_ids(text)
            stop = next((i for i, t in enumerate(own) if t in self.tokenizer.eos_ids), None)
            if ends_turn and stop is None:
                raise InvalidRequest("The chat template does not end an assistant's turn.")
            learned = stop + 1 if ends_turn and stop is not None else 0
            ids += own
            mask += [position < learned for position in range(len(own))]
            ends_turn = False
            if message is not None:
                content = self.tokenizer.text_ids(plain_text(message["content"]))
                ends_turn = message["role"] == "assistant" and message.get("weight", 1) == 1
                ids += content
                mask += [ends_turn] * len(content)
        return Rendered(ids, mask)

    def _pieces(
        self, messages: Sequence[Mapping[str, Any]], *, generate: bool
    ) -> list[tuple[str, Mapping[str, Any] | None]]:
        """Return the template's text before each message's content, and the text after the last."""
        masked = [
            {"role": _role(message["role"]), "content": f"\ue0f1{number}\ue0f2"}
            for number, message in enumerate(messages)
        ]
        try:
            text = self._template.render(
                **self._variables, messages=masked, add_generation_prompt=generate
            )
        except jinja2.TemplateError as error:
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {error}", param="messages"
            ) from None
        parts = _PLACEHOLDER.split(text)
        if [int(number) for number in parts[1::2]] != list(range(len(messages))):
            raise InvalidRequest(
                "The model's chat template has no place for one of these messages; got roles"
                f" {', '.join(m['role'] for m in masked)[:200]}.",
                param="messages",
            )
        return [
            *((text, messages[i]) for i, text in enumerate(parts[0:-1:2])),
            (parts[-1], None),
        ]


def plain_text(content: str | Sequence[Mapping[str, Any]]) -> str:
    """Return a message's content as one text; its text parts are joined by newlines."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _role(role: str) -> str:
    """Return the role as templates know it: `developer` is OpenAI's newer word for `system`."""
    return "system" if role == "developer" else role


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now(datetime.UTC).strftime(pattern)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)

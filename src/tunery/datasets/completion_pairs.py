"""Lines of a prompt and what is to follow it: raw text, as OpenAI's older models are tuned on.

No chat template has a part in them. Prompt and completion are tokenized each by itself, since that
is what the completions endpoint does with a prompt: the boundary in training is the one in serving.
"""

from collections.abc import Mapping
from typing import Any

from tunery.datasets.reader import short
from tunery.datasets.tokenizer import TextTokenizer

PROMPT, COMPLETION = "prompt", "completion"


def is_pair(line: Mapping[str, Any]) -> bool:
    """Return whether a line is meant as one of a file of prompts and completions."""
    return (PROMPT in line or COMPLETION in line) and "messages" not in line


def check_pair(line: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a line `{"prompt": ..., "completion": ...}`, or None."""
    for key in (PROMPT, COMPLETION):
        if key not in line:
            return f"the key {key!r} is missing"
        if not isinstance(line[key], str):
            return f"{key!r} is {short(line[key])}; a text is needed"
    for key in line:
        if key not in (PROMPT, COMPLETION):
            return f"contains an extra {short(key)}; known are {PROMPT}, {COMPLETION}"
    return None if line[COMPLETION] else f"{COMPLETION!r} is empty: there is nothing to learn"


def pair_ids(line: Mapping[str, Any], tokenizer: TextTokenizer) -> tuple[list[int], list[int]]:
    """Return the ids of a checked line's prompt, and of what is to be learned after it.

    That is the completion, and the token that ends an answer, so that the model stops there.
    """
    return tokenizer.prompt_ids(line[PROMPT]), [
        *tokenizer.text_ids(line[COMPLETION]),
        tokenizer.end_id,
    ]

"""Intent to JSON: the demo's support messages, and its split by sentence."""

import json

from quality_tasks.task import Item, Task
from support_messages import INTENTS, LONG_PROMPT, SHORT_PROMPT, TEMPLATES, Split, make

TRAINED_ON, TESTED_ON = 320, 100


def _items(split: Split, count: int, seed: int) -> list[Item]:
    intents, sentences = len(INTENTS), len(range(*TEMPLATES[split].indices(1000)))
    return [
        Item(one.message, one.answer, group=f"{place % intents}/{place // intents % sentences}")
        for place, one in enumerate(make(split, count, seed))
    ]


def right(item: Item, answer: str) -> bool:
    """Return whether the answer is JSON with the fields of the right one, and nothing else."""
    try:
        found: object = json.loads(answer)
    except ValueError:
        return False
    wanted: object = json.loads(item.answer)
    return found == wanted


INTENT = Task(
    name="intent",
    about="a customer's message to JSON: one of 20 intents, order number, product",
    prompt=SHORT_PROMPT,
    instructions=LONG_PROMPT,
    answer_tokens=60,
    train=lambda seed: _items("train", TRAINED_ON, seed),
    test=lambda seed: _items("test", TESTED_ON, seed),
    judge=right,
)

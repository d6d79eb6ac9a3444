"""A brand's tone: replies of a shop for boat gear, in its own voice, that answer what was asked.

The voice has rules that can be checked without a judge of flesh and blood. Products and ways to ask
are split.
"""

import random
import re
from dataclasses import dataclass
from functools import partial
from typing import Final

from quality_tasks.task import Item, Task, distinct, pick

TRAINED_ON, TESTED_ON = 160, 100
MOST_WORDS = 40
OPENING, ENDING = "Ahoy, skipper.", "Fair winds, Harbour & Hitch"

TRAINED_PRODUCTS: Final = (
    "life jacket",
    "anchor chain",
    "tiller",
    "bilge pump",
    "sea chart",
    "deck lamp",
    "mooring rope",
    "sailing glove",
    "oilskin",
    "ship's bell",
    "winch handle",
    "fender",
)
TESTED_PRODUCTS: Final = ("signal horn", "dinghy", "barometer", "boat hook", "storm jib", "sextant")


@dataclass(frozen=True, slots=True)
class Matter:
    """What is asked: five ways to train on, four that only tests have; and what is replied.

    A reply is about the matter if it has one of the `words`.
    """

    asked: tuple[str, ...]
    replied: tuple[str, ...]
    words: tuple[str, ...]


MATTERS: Final = (
    Matter(
        (
            "Can I return the {p}?",
            "How do I send the {p} back?",
            "I don't like my {p}, will you take it back?",
            "What is your policy if I want to return a {p}?",
            "i want my money back for the {p}!!",
            "The {p} is not for me. May I give it back?",
            "Is it possible to hand the {p} in again and be refunded?",
            "I changed my mind about the {p}. Is it too late to give it back?",
            "Do you accept the {p} back if it was never used?",
        ),
        (
            "Your {p} may return to our harbour within 30 days.",
            "We take the {p} back on return within 30 days.",
        ),
        ("return", "take"),
    ),
    Matter(
        (
            "When will my {p} arrive?",
            "How long does delivery of the {p} take?",
            "Where is my {p}? I ordered it a week ago.",
            "Has my {p} been sent yet?",
            "still no {p}!! where is it???",
            "I am waiting for the {p}. What day does it come?",
            "How many days until I hold the {p} in my hands?",
            "Could you tell me the delivery date of my {p}?",
            "Was the {p} shipped already, and when does it get here?",
        ),
        (
            "Your {p} is on course and should arrive within four days.",
            "We have sent the {p} out, and it should arrive within four days.",
        ),
        ("arrive", "on course", "sent"),
    ),
    Matter(
        (
            "Is the {p} in stock?",
            "Do you still have the {p}?",
            "Can I buy a {p} today?",
            "Are there any {p}s left?",
            "do u have the {p}",
            "Is a {p} available at the moment?",
            "I would like to order a {p}, have you got one?",
            "Are you sold out of the {p} or can I have one?",
            "Will I find the {p} in your shop?",
        ),
        (
            "We have the {p} in stock, ready to board.",
            "The {p} is in stock and waits at our quay.",
        ),
        ("stock",),
    ),
    Matter(
        (
            "My {p} arrived broken.",
            "The {p} has a crack. What now?",
            "There is something wrong with my {p}.",
            "The {p} stopped working after two days!",
            "ur {p} is rubbish, it fell apart",
            "What can be done about a damaged {p}?",
            "I unpacked the {p} and it is faulty!",
            "A part of my {p} snapped on its first trip.",
            "My new {p} is defective, what will you do about it?",
        ),
        (
            "We are sorry about the {p} and will replace it at no cost.",
            "A sound {p} will replace the faulty one at no cost to you.",
        ),
        ("replace",),
    ),
    Matter(
        (
            "How do I look after the {p}?",
            "How should I clean my {p}?",
            "What is the best way to care for a {p}?",
            "Can I wash the {p}?",
            "how to keep my {p} nice",
            "My {p} is dirty. How do I get it clean?",
            "How does one maintain a {p} over the winter?",
            "There is salt all over my {p}. What should I do with it?",
            "Which treatment keeps a {p} in good shape?",
        ),
        (
            "Rinse the {p} with fresh water and let it dry in the shade.",
            "We rinse the {p} with fresh water after each trip and keep it dry.",
        ),
        ("rinse", "fresh water"),
    ),
)
ASKED_TRAINED: Final = slice(0, 5)
ASKED_TESTED: Final = slice(5, 9)

_MORE: Final = (
    "Our crew is at the quay from eight to six.",
    "Write to us whenever the sea allows.",
    "Our deckhands gladly help with the rest.",
    "",
)


def _items(seed: int, count: int, *, tested: bool) -> list[Item]:
    random_ = random.Random(f"tone/{tested}/{seed}")
    ways = ASKED_TESTED if tested else ASKED_TRAINED

    def make(place: int) -> Item:
        matter = MATTERS[place % len(MATTERS)]
        product = pick(random_, TESTED_PRODUCTS if tested else TRAINED_PRODUCTS)
        way = pick(random_, matter.asked[ways])
        question = way.format(p=product)
        parts = (OPENING, pick(random_, matter.replied).format(p=product), pick(random_, _MORE))
        answer = " ".join(part for part in (*parts, ENDING) if part)
        name = pick(random_, ("", "Hi,", "Hello!", "Good day.", "Hey"))
        return Item(f"{name} {question}".strip(), answer, (product, *matter.words), way)

    return distinct(make, count)


def right(item: Item, answer: str) -> bool:
    """Return whether the answer keeps every rule of the voice, names the product and the matter."""
    product, *words = item.wanted
    text = answer.strip()
    low = text.lower()
    keeps_voice = (
        text.startswith(OPENING)
        and text.endswith(ENDING)
        and text.count(ENDING) == 1
        and "!" not in text
        and "?" not in text
        and text.isascii()
        and not re.search(r"\b(i|i'm|my|me)\b", low)
        and len(text.split()) <= MOST_WORDS
    )
    return keeps_voice and product in low and any(word in low for word in words)


TONE = Task(
    name="tone",
    about="replies in a brand's voice, checked by its rules; unseen products",
    prompt="Reply to the customer.",
    instructions=(
        "You answer the customers of Harbour & Hitch, a shop for boat gear, in its own voice. Begin"
        f' with "{OPENING}" and end with "{ENDING}". Say "we", never "I". Use no exclamation mark,'
        f" no question mark and no emoji. Write at most {MOST_WORDS} words. Name the product, and"
        " say what applies: we take everything back within 30 days of return; what was ordered"
        " should arrive within four days; all products are in stock; we replace what is faulty at"
        " no cost; rinse products with fresh water and let them dry in the shade."
    ),
    answer_tokens=70,
    train=partial(_items, count=TRAINED_ON, tested=False),
    test=partial(_items, count=TESTED_ON, tested=True),
    judge=right,
)

"""Classification: a letter to a town's office, and which of 70 trays it belongs in.

A label names a document and what the letter wants of it. Sentences are split, and of each
document's names two are in no training letter.
"""

import random
from functools import partial
from typing import Final

from quality_tasks.task import Item, Task, distinct, pick

TESTED_PER_LABEL = 2

# Of each document: four names to train on, two that only tests have.
DOCUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "passport": (
        "passport",
        "travel document",
        "passport booklet",
        "passport for trips abroad",
        "document for leaving the country",
        "booklet for border controls",
    ),
    "parking": (
        "parking permit",
        "resident parking badge",
        "sticker for parking on my street",
        "permit for my parking space",
        "badge for leaving my car on the street",
        "car park badge",
    ),
    "library": (
        "library card",
        "card for borrowing books",
        "reader's card",
        "town library membership",
        "book lending card",
        "membership for the reading room",
    ),
    "dog": (
        "dog licence",
        "dog tag",
        "permit for keeping my dog",
        "licence for my puppy",
        "tag for my terrier",
        "hound licence",
    ),
    "pool": (
        "pool pass",
        "swimming pass",
        "season ticket for the pool",
        "card for the swimming baths",
        "swimmer's season card",
        "lido pass",
    ),
    "bus": (
        "bus pass",
        "monthly bus ticket",
        "travel card for the buses",
        "season ticket for public transport",
        "monthly card for the bus lines",
        "public transport pass",
    ),
    "building": (
        "building permit",
        "construction permit",
        "planning permission",
        "permit for my extension",
        "permission to put up a garage",
        "construction licence",
    ),
    "market": (
        "market stall licence",
        "permit for my market stand",
        "trader's licence for the square",
        "stall permit",
        "licence for selling cheese on the market",
        "street trader's permit",
    ),
    "birth": (
        "birth certificate",
        "certificate of my daughter's birth",
        "copy of the birth record",
        "extract from the register of births",
        "paper that proves when I was born",
        "record of my son's birth",
    ),
    "marriage": (
        "marriage certificate",
        "wedding certificate",
        "copy of the marriage record",
        "proof of our marriage",
        "extract from the register of marriages",
        "paper that proves our wedding",
    ),
    "garden": (
        "allotment lease",
        "garden plot lease",
        "contract for our allotment",
        "lease of the vegetable garden",
        "contract for the garden plot",
        "lease for growing vegetables",
    ),
    "fishing": (
        "fishing licence",
        "angling permit",
        "licence to fish in the lake",
        "angler's card",
        "permit for catching trout",
        "angler's licence",
    ),
    "voting": (
        "voting card",
        "polling card",
        "voter's card",
        "ballot card for the election",
        "card for the polling station",
        "election card",
    ),
    "driving": (
        "driving licence",
        "driver's licence",
        "licence for driving a car",
        "driving permit",
        "permit to drive",
        "motorist's licence",
    ),
}
NAMES_TRAINED: Final = slice(0, 4)

# Of each wish: eight sentences to train on, four that only tests have.
WISHES: Final[dict[str, tuple[str, ...]]] = {
    "apply": (
        "How do I get a {d}?",
        "I would like to apply for a {d}.",
        "Which form do I need for my first {d}?",
        "I have just moved here and need a {d}.",
        "What papers must I bring to be given a {d}?",
        "Can I ask for a {d} online?",
        "I never had a {d} before, where do I start?",
        "My wife wants a {d} too, how does she request one?",
        "Please tell me how to obtain a {d}.",
        "Where can I hand in an application for a {d}?",
        "I am new in town and would like to request a {d}.",
        "Which documents are needed when one applies for a first {d}?",
    ),
    "lost": (
        "I have lost my {d}.",
        "My {d} was stolen on the train.",
        "I cannot find my {d} anywhere.",
        "Somebody took my bag with the {d} in it.",
        "My {d} has disappeared, can you block it?",
        "I left my {d} in a taxi and it is gone.",
        "The {d} is missing since our holiday, I need a replacement.",
        "Has anybody handed in a {d}? Mine is gone.",
        "My {d} fell out of my pocket and is gone.",
        "A thief has my {d} now.",
        "I looked everywhere, but the {d} is nowhere to be found.",
        "I must report that my {d} was stolen.",
    ),
    "price": (
        "How much does a {d} cost?",
        "What is the fee for a {d}?",
        "Is the {d} free for pensioners?",
        "Do students pay less for the {d}?",
        "Can I pay for the {d} by card?",
        "What do you charge for a {d}?",
        "I was charged 40 for the {d}, is that the right price?",
        "Are there discounts on the {d} for families?",
        "How many euros must I pay for the {d}?",
        "Is there a reduced rate of the {d} for the unemployed?",
        "Tell me the price of a {d}, please.",
        "Why has the {d} become so expensive?",
    ),
    "late": (
        "I applied for a {d} six weeks ago and have heard nothing.",
        "When will my {d} finally arrive?",
        "My {d} should have come last week.",
        "How long does it take until the {d} is ready?",
        "I am still waiting for the {d} that I requested in May.",
        "Why does my {d} take so long?",
        "You promised the {d} for Monday and it is not here.",
        "Is my {d} ready to be collected yet?",
        "Two months have passed since my application and there is no {d}.",
        "The {d} has still not come by post.",
        "What is the hold-up with the {d} that I asked for in March?",
        "By which day can I expect my {d} to be ready?",
    ),
    "renew": (
        "My {d} expires next month.",
        "How do I renew my {d}?",
        "I want to extend my {d} for another year.",
        "The {d} is out of date, what must I do?",
        "Can my {d} be renewed by post?",
        "My old {d} runs out in June, I need a new one.",
        "Until when is my {d} valid, and can I extend it?",
        "The {d} has expired while I was abroad.",
        "My {d} is only valid until Friday, please extend it.",
        "What must I do before the {d} runs out?",
        "I let my {d} expire, can it still be renewed?",
        "Please prolong my {d} by twelve months.",
    ),
}
SENTENCES_TRAINED: Final = slice(0, 8)
SENTENCES_TESTED: Final = slice(8, 12)

OPENINGS: Final = ("", "Hello,", "Good morning.", "Hi!")

LABELS: Final = tuple(f"{document}/{wish}" for document in DOCUMENTS for wish in WISHES)


def _items(seed: int, per_label: int, *, tested: bool) -> list[Item]:
    random_ = random.Random(f"labels/{tested}/{seed}")
    sentences = SENTENCES_TESTED if tested else SENTENCES_TRAINED
    names = slice(None) if tested else NAMES_TRAINED

    def make(place: int) -> Item:
        label = LABELS[place % len(LABELS)]
        document, wish = label.split("/")
        sentence = pick(random_, WISHES[wish][sentences])
        asked = sentence.format(d=pick(random_, DOCUMENTS[document][names]))
        return Item(f"{pick(random_, OPENINGS)} {asked}".strip(), label, group=sentence)

    items = distinct(make, per_label * len(LABELS))
    random_.shuffle(items)
    return items


def right(item: Item, answer: str) -> bool:
    """Return whether the answer is the label, spaces around it aside."""
    return answer.strip() == item.answer


_PROMPT = "Name the tray of this letter."
_INSTRUCTIONS = (
    "You sort the letters to a town's office into trays. A tray has the name DOCUMENT/WISH."
    f" DOCUMENT is what the letter is about, one of: {', '.join(DOCUMENTS)}. WISH is one of:"
    " apply (wants to get one), lost (it is lost or stolen), price (what it costs), late (waits for"
    " one that was asked for), renew (it expires). Answer with the tray's name alone, for example"
    " passport/lost."
)


def _task(per_label: int) -> Task:
    return Task(
        name=f"labels-{per_label}",
        about=f"a letter to one of 70 labels, {per_label} examples of each",
        prompt=_PROMPT,
        instructions=_INSTRUCTIONS,
        answer_tokens=12,
        train=partial(_items, per_label=per_label, tested=False),
        test=partial(_items, per_label=TESTED_PER_LABEL, tested=True),
        judge=right,
    )


LABELS_10, LABELS_40 = _task(10), _task(40)

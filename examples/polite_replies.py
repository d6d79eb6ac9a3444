"""A seeded data set of preferences: a shop's replies, of which the polite one is preferred.

A customer asks one of a few things about a product. Both replies say the same; one thanks and
offers help, the other is curt. Products and ways to ask are split: no product and no phrasing of
the test split occurs in the training split, so what is measured there is the manner and not memory.

Run the file to see a few samples of each split.
"""

import random
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

Split = Literal["train", "test"]

PRODUCTS: Final[dict[Split, tuple[str, ...]]] = {
    "train": (
        "headlamp",
        "tent",
        "sleeping bag",
        "rain jacket",
        "backpack",
        "camping stove",
        "water filter",
        "hammock",
        "dry bag",
        "fleece vest",
        "trekking pole",
        "camp chair",
    ),
    "test": (
        "thermos flask",
        "climbing harness",
        "sleeping mat",
        "down jacket",
        "compass",
        "lantern",
    ),
}


@dataclass(frozen=True, slots=True)
class Matter:
    """What is asked, in phrasings for each split, and the answer's substance."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    answers: tuple[str, ...]


MATTERS: Final = (
    Matter(
        ("Is the {p} in stock?", "Do you still have the {p}?", "Can I buy the {p} today?"),
        ("Any {p} left?", "Is the {p} available right now?"),
        ("the {p} is in stock", "the {p} is sold out until Monday"),
    ),
    Matter(
        ("When will my {p} arrive?", "How long does delivery of the {p} take?", "Where is my {p}?"),
        ("My {p} has not come yet. When does it?", "What day do I get the {p}?"),
        ("the {p} arrives on Friday", "the {p} takes three days"),
    ),
    Matter(
        ("What does the {p} cost?", "How much is the {p}?", "Tell me the price of the {p}."),
        ("How expensive is the {p}?", "What would I pay for a {p}?"),
        ("the {p} costs 45 euros", "the {p} is 80 euros"),
    ),
    Matter(
        ("Can I return the {p}?", "I want to send the {p} back.", "How do I return my {p}?"),
        ("The {p} does not suit me. Can it go back?", "Do you take the {p} back?"),
        ("you can return the {p} within 30 days", "the {p} goes back with the label in the box"),
    ),
    Matter(
        ("My {p} is broken.", "The {p} stopped working.", "The {p} came damaged."),
        ("There is a crack in my {p}.", "The {p} fell apart after a week."),
        ("we replace the {p}", "we repair the {p} for free"),
    ),
)
THANKS: Final = (
    "Thank you for writing to us!",
    "Thank you so much for asking!",
    "Thank you for your message!",
)
OFFERS: Final = (
    "Please let us know if we can help with anything else.",
    "Please write again whenever you need us.",
    "We are always happy to help.",
)
CURT: Final = ("Next.", "That is all.", "Read the website.", "Do not write again.", "Obviously.")


@dataclass(frozen=True, slots=True)
class Preference:
    """A question, and two replies of one substance."""

    question: str
    polite: str
    curt: str


def make(split: Split, count: int, seed: int = 7) -> list[Preference]:
    """Make `count` preferences of a split; the same arguments give the same list."""
    rng = random.Random(f"{split}-{seed}")
    made = []
    for index in range(count):
        matter = MATTERS[index % len(MATTERS)]
        product = rng.choice(PRODUCTS[split])
        question = rng.choice(matter.train if split == "train" else matter.test).format(p=product)
        said = rng.choice(matter.answers).format(p=product)
        said = f"{said[0].upper()}{said[1:]}."
        made.append(
            Preference(
                question,
                polite=f"{rng.choice(THANKS)} {said} {rng.choice(OFFERS)}",
                curt=f"{said} {rng.choice(CURT)}",
            )
        )
    return made


def is_polite(reply: str) -> bool:
    """Return whether a reply thanks whoever wrote, by the plainest of rules."""
    return re.search(r"\b(thank you|thanks)\b", reply, re.IGNORECASE) is not None


def preference_line(preference: Preference) -> dict[str, object]:
    """Give the preference as one line of a fine-tuning file for the method `dpo`."""
    return {
        "input": {"messages": [{"role": "user", "content": preference.question}]},
        "preferred_output": [{"role": "assistant", "content": preference.polite}],
        "non_preferred_output": [{"role": "assistant", "content": preference.curt}],
    }


def main() -> None:
    for split in get_args(Split):
        print(f"\n{split}")
        for preference in make(split, 5):
            print(f"  {preference.question}\n    + {preference.polite}\n    - {preference.curt}")


if __name__ == "__main__":
    main()

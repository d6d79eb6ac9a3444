"""The training benchmark's chats: made from a seed, the same for every trainer.

A customer writes to the support of a shop for camping equipment, in one to three turns. Lengths are
lognormal, as those of real chats are: many short, few long. The set "shared" begins every chat with
one system prompt of about 120 tokens; "plain" has none, and longer turns in its place, so that
examples of both sets have about 250 tokens in the mean.

Written by this file alone, from lists: no text of anyone's is in it.
"""

import json
import random
from pathlib import Path

EXAMPLES, HELD_OUT = 500, 60
SETS = ("shared", "plain")
# Words of all turns of a chat, in the mean; about 1.3 tokens each.
_MEAN_WORDS = {"shared": 60, "plain": 130}
_SPREAD = 0.55  # standard deviation of the logarithm

SYSTEM = (
    "You are Nova, the support assistant of Brightleaf Outfitters, an online shop for camping and"
    " hiking equipment. Answer the customer's question politely and precisely, in plain English."
    " Name the concrete next step first, then the number of the policy that applies, and finish by"
    " asking whether anything else is needed. Never promise a refund above 200 euros: such cases go"
    " to the escalation team. Do not give medical or legal advice, do not speak about other shops,"
    " and do not ask for a password or a full card number. If an order number is missing, ask for"
    " it before anything else."
)
_PRODUCTS = (
    "two-person tent",
    "down sleeping bag",
    "pair of trekking poles",
    "gas stove",
    "headlamp",
    "water filter",
    "pair of hiking boots",
    "rain jacket",
    "40-litre backpack",
    "camping chair",
    "titanium mug",
    "satellite messenger",
)
# What went wrong, the next step, the policy.
_CASES = (
    ("arrived damaged", "open a damage claim under Orders and add two photos", "P-12"),
    ("has not arrived yet", "follow the tracking link of the dispatch message", "P-03"),
    ("is the wrong size", "print the free return label from the Returns page", "P-07"),
    ("stopped working after {n} days", "send us the serial number and a short video", "P-15"),
    ("was charged twice", "upload the statement that shows both charges", "P-21"),
    ("is missing a part", "tell us the number of the part from the manual", "P-11"),
    ("came in another colour than I chose", "choose Exchange beside the order", "P-08"),
    ("got wet inside on the first night", "send us a photo of the seam that leaks", "P-16"),
)
_DETAILS = (
    "I ordered it for a trip to {place} that starts on {day}.",
    "It was a present for my {person}, who is quite disappointed.",
    "My order number is {order}.",
    "I already wrote to you on {day}, but nobody has answered me.",
    "I live in a small village near {place}, so parcels are often left with my neighbour.",
    "I paid by credit card and still have the receipt over {n} euros.",
    "The weather was bad but not extreme, and I followed the manual step by step.",
    "I have been a customer for {n} years and this is the first problem that I ever had.",
    "I would rather have a replacement than my money back, if that is possible.",
    "The box looked fine from the outside when it came on {day}.",
    "My {person} has the same one, bought in the same week, and it has no such fault.",
    "The courier's page has said for {n} days that it is on its way to {place}.",
    "I tried it again this morning with my {person} and the result was the same.",
    "We need it by {day} at the latest, because we leave for {place} then.",
)
_ADVICE = (
    "Please keep the original packaging until the case is closed.",
    "A replacement leaves our store within {n} working days of your claim.",
    "You will get a message with case number {order} in a few minutes.",
    "Anything above 200 euros is looked at by a colleague of the escalation team.",
    "The refund goes back to the card that you paid with, usually by {day}.",
    "Since your trip starts soon, express delivery to {place} costs you nothing.",
    "We are here from Monday to Saturday between 8 and 18 o'clock.",
    "The photos should show the whole item and a close view of the fault.",
    "If your {person} is at home on {day}, the courier can collect it there.",
    "Please do not try to repair it yourself, since that would end the warranty.",
    "I have noted order {order} in your case, so you need not name it again.",
    "Should nothing have come by {day}, answer this message and we send another one.",
    "The parcel shop in {place} takes the return without a printed label as well.",
    "You have {n} days for that, counted from the day of the delivery.",
)
_FOLLOW_UPS = (
    "Thank you. How long will that take?",
    "And what if I cannot find the receipt any more?",
    "Can somebody call me about it instead?",
    "Could I hand it in at a shop near me?",
    "That is good to know. Is there anything else that I should do?",
)
_PLACES = ("Norway", "the Dolomites", "Snowdonia", "Corsica", "Lapland", "the Tatra", "Madeira")
_PEOPLE = ("sister", "brother", "father", "colleague", "neighbour", "daughter", "wife", "husband")
_MONTHS = ("March", "April", "May", "June", "July", "August", "September", "October")


def write(folder: Path, which: str) -> tuple[Path, Path]:
    """Write the chats to train on and those held out as JSONL; return both files."""
    random_ = random.Random(f"training/{which}")
    lines = [json.dumps(_chat(random_, which)) + "\n" for _ in range(EXAMPLES + HELD_OUT)]
    files = folder / f"{which}.jsonl", folder / f"{which}-held-out.jsonl"
    files[0].write_text("".join(lines[:EXAMPLES]))
    files[1].write_text("".join(lines[EXAMPLES:]))
    return files


def _chat(random_: random.Random, which: str) -> dict[str, list[dict[str, str]]]:
    # Where a logarithm is spread by s, the mean is e^(s^2 / 2) times the median.
    median = _MEAN_WORDS[which] * 2.718281828 ** (-(_SPREAD**2) / 2)
    words = min(450.0, max(20.0, median * random_.lognormvariate(0, _SPREAD)))
    turns = random_.choices((1, 2, 3), (6, 3, 1) if words > 80 else (1, 0, 0))[0]
    product = random_.choice(_PRODUCTS)
    trouble, step, policy = random_.choice(_CASES)
    messages = []
    if which == "shared":
        messages.append({"role": "system", "content": SYSTEM})
    for turn in range(turns):
        asked = f"Hello, my {product} {trouble}." if turn == 0 else random_.choice(_FOLLOW_UPS)
        answered = (
            f"I am sorry that your {product} {trouble.replace('I chose', 'you chose')}. Please"
            f" {step}; policy {policy} applies."
            if turn == 0
            else f"For your {product}, policy {policy} says the following."
        )
        share = words / turns
        question = _filled(random_, asked, _DETAILS, 0.45 * share)
        answer = _filled(random_, answered, _ADVICE, 0.55 * share)
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": f"{answer} Is there anything else that you need?"},
        ]
    return {"messages": messages}


def _filled(random_: random.Random, text: str, sentences: tuple[str, ...], words: float) -> str:
    """Return `text` with as many sentences behind it as make about that many words."""
    order = random_.sample(sentences, len(sentences))
    while order and len(text.split()) < words:
        text = f"{text} {order.pop()}"
    return text.format_map(_Slots(random_))


class _Slots(dict[str, str]):
    """A value for each slot, drawn whenever it is asked for."""

    def __init__(self, random_: random.Random) -> None:
        super().__init__()
        self._random = random_

    def __missing__(self, name: str) -> str:
        draw = self._random
        match name:
            case "n":
                return str(draw.randint(2, 90))
            case "order":
                return f"{draw.randint(10_000, 99_999)}-{draw.randint(100, 999)}"
            case "day":
                return f"{draw.randint(1, 28)} {draw.choice(_MONTHS)}"
            case "place":
                return draw.choice(_PLACES)
            case "person":
                return draw.choice(_PEOPLE)
        raise KeyError(name)

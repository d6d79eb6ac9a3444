"""Answers in the language of the question, German or English, about places it never heard of.

A message has a sheet of three facts, in either language, and a question in the same or the other
one. The answer is a sentence in the question's language with the one fact that was asked for. Kinds
of places, names and ways to ask are split.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final, Literal

from quality_tasks.task import Item, Task, distinct, pick

Language = Literal["en", "de"]
Detector = Callable[[str], str]
TRAINED_ON, TESTED_ON = 240, 120
SHEET = 3  # facts on a sheet


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of place: its noun with the article, in both languages."""

    en: str
    de: str


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a sheet says and that can be asked for.

    `label`, `asked` (six ways to train on, two that only tests have) and `told`, by language.
    """

    label: dict[Language, str]
    asked: dict[Language, tuple[str, ...]]
    told: dict[Language, tuple[str, ...]]
    make: Callable[[random.Random], str]


TRAINED_KINDS: Final = (
    Kind("the museum", "das Museum"),
    Kind("the swimming pool", "das Schwimmbad"),
    Kind("the library", "die Bibliothek"),
    Kind("the castle", "die Burg"),
    Kind("the bakery", "die Bäckerei"),
    Kind("the cinema", "das Kino"),
    Kind("the bicycle shop", "der Fahrradladen"),
    Kind("the tea house", "das Teehaus"),
    Kind("the ice rink", "die Eisbahn"),
    Kind("the lighthouse", "der Leuchtturm"),
)
TESTED_KINDS: Final = (
    Kind("the zoo", "der Zoo"),
    Kind("the observatory", "die Sternwarte"),
    Kind("the theatre", "das Theater"),
    Kind("the cable car", "die Seilbahn"),
    Kind("the pharmacy", "die Apotheke"),
    Kind("the botanical garden", "der Botanische Garten"),
)
TRAINED_NAMES: Final = ("Arnsfeld", "Birkholm", "Dorlach", "Eschwik", "Falkrode", "Grentau")
TESTED_NAMES: Final = ("Hollmar", "Ilmsted", "Korvach", "Lindrup")


def _time(first: int, last: int, random_: random.Random) -> str:
    return f"{random_.randint(first, last)}:{random_.randrange(5, 60, 5):02}"


FACTS: Final = (
    Fact(
        {"en": "opens", "de": "öffnet"},
        {
            "en": (
                "When does {k} open?",
                "At what time can I get into {k}?",
                "What time does {k} open in the morning?",
                "From when on is {k} open?",
                "I want to be there first. When does {k} open its doors?",
                "Could you tell me when {k} opens?",
                "How early in the day may one visit {k}?",
                "Which is the opening time of {k}?",
            ),
            "de": (
                "Wann öffnet {k}?",
                "Um wie viel Uhr macht {k} auf?",
                "Ab wann hat {k} morgens offen?",
                "Ich will die Erste sein. Wann öffnet {k}?",
                "Können Sie mir sagen, wann {k} öffnet?",
                "Ab welcher Uhrzeit ist {k} geöffnet?",
                "Wie früh am Tag macht {k} auf?",
                "Zu welcher Zeit geht es morgens los? Ich meine {k}.",
            ),
        },
        {
            "en": ("{K} opens at {v}.", "You can visit {k} from {v} on."),
            "de": ("{K} öffnet um {v} Uhr.", "Ab {v} Uhr ist {k} geöffnet."),
        },
        partial(_time, 7, 11),
    ),
    Fact(
        {"en": "closes", "de": "schließt"},
        {
            "en": (
                "When does {k} close?",
                "Until when is {k} open?",
                "What time does {k} close in the evening?",
                "How late can I stay? I mean {k}.",
                "At what time does {k} shut?",
                "Could you tell me when {k} closes?",
                "How long is {k} open in the evening?",
                "By what time must one leave {k}?",
            ),
            "de": (
                "Wann schließt {k}?",
                "Bis wann ist {k} offen?",
                "Um wie viel Uhr macht {k} abends zu?",
                "Wie lange kann ich bleiben? Ich meine {k}.",
                "Können Sie mir sagen, wann {k} schließt?",
                "Bis zu welcher Uhrzeit ist {k} geöffnet?",
                "Wie lange hat {k} am Abend auf?",
                "Ab wann ist {k} abends zu?",
            ),
        },
        {
            "en": ("{K} closes at {v}.", "You can stay until {v}, then {k} closes."),
            "de": ("{K} schließt um {v} Uhr.", "Bis {v} Uhr ist {k} geöffnet."),
        },
        partial(_time, 16, 22),
    ),
    Fact(
        {"en": "price in euros", "de": "Preis in Euro"},
        {
            "en": (
                "How much does {k} cost for one person?",
                "What is the price for {k}?",
                "How many euros must I pay for {k}?",
                "What do I pay for {k}?",
                "Is {k} expensive? What does it cost?",
                "Could you tell me the price for {k}?",
                "What would {k} cost me?",
                "How much money should I bring for {k}?",
            ),
            "de": (
                "Wie viel kostet {k} für eine Person?",
                "Was ist der Preis? Ich meine {k}.",
                "Wie viele Euro muss ich zahlen? Es geht um {k}.",
                "Was kostet {k}?",
                "Ist {k} teuer? Was kostet es?",
                "Können Sie mir sagen, was {k} kostet?",
                "Was würde mich {k} kosten?",
                "Wie viel Geld soll ich mitnehmen? Es geht um {k}.",
            ),
        },
        {
            "en": ("{K} costs {v} euros.", "You pay {v} euros for {k}."),
            "de": ("{K} kostet {v} Euro.", "Sie zahlen {v} Euro, denn so viel kostet {k}."),
        },
        lambda random_: str(random_.randint(3, 48)),
    ),
    Fact(
        {"en": "telephone", "de": "Telefon"},
        {
            "en": (
                "What is the telephone number of {k}?",
                "Which number do I call for {k}?",
                "How can I reach {k} by phone?",
                "Please give me the phone number of {k}.",
                "I would like to ring {k}. What is the number?",
                "Could you tell me the number of {k}?",
                "Under which number does {k} answer the phone?",
                "I want to talk to somebody at {k}. What do I dial?",
            ),
            "de": (
                "Welche Telefonnummer hat {k}?",
                "Welche Nummer wähle ich? Es geht um {k}.",
                "Wie ist {k} telefonisch zu erreichen?",
                "Bitte geben Sie mir die Telefonnummer. Ich meine {k}.",
                "Ich möchte anrufen. Welche Nummer hat {k}?",
                "Können Sie mir sagen, welche Nummer {k} hat?",
                "Unter welcher Nummer ist {k} zu sprechen?",
                "Ich will dort mit jemandem reden. Welche Nummer hat {k}?",
            ),
        },
        {
            "en": ("The telephone number of {k} is {v}.", "You reach {k} by phone at {v}."),
            "de": ("{K} hat die Telefonnummer {v}.", "Unter {v} ist {k} zu erreichen."),
        },
        lambda random_: f"0{random_.randint(300, 999)} {random_.randint(1000, 9999)}",
    ),
    Fact(
        {"en": "built in", "de": "gebaut"},
        {
            "en": (
                "When was {k} built?",
                "In which year was {k} built?",
                "How old is {k}? When was it built?",
                "Since what year has {k} been standing?",
                "Which year is {k} from?",
                "Could you tell me in what year {k} was built?",
                "From what year does the house date? I mean {k}.",
                "What year did they build {k}?",
            ),
            "de": (
                "Wann wurde {k} gebaut?",
                "In welchem Jahr wurde {k} gebaut?",
                "Wie alt ist das Haus? Wann wurde {k} gebaut?",
                "Seit welchem Jahr steht {k}?",
                "Aus welchem Jahr stammt {k}?",
                "Können Sie mir sagen, in welchem Jahr {k} gebaut wurde?",
                "Welches Baujahr hat {k}?",
                "In welchem Jahr hat man {k} errichtet?",
            ),
        },
        {
            "en": ("{K} was built in {v}.", "{K} dates from the year {v}."),
            "de": ("{K} wurde im Jahr {v} gebaut.", "{K} stammt aus dem Jahr {v}."),
        },
        lambda random_: str(random_.randint(1710, 1989)),
    ),
)
ASKED_TRAINED: Final = slice(0, 6)
ASKED_TESTED: Final = slice(6, 8)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _items(seed: int, count: int, *, tested: bool) -> list[Item]:
    random_ = random.Random(f"language/{tested}/{seed}")
    kinds = TESTED_KINDS if tested else TRAINED_KINDS
    names = TESTED_NAMES if tested else TRAINED_NAMES
    ways = ASKED_TESTED if tested else ASKED_TRAINED

    def make(place: int) -> Item:
        language: Language = ("en", "de")[place % 2]
        fact = FACTS[place // 2 % len(FACTS)]
        sheet_in: Language = random_.choice(("en", "de"))
        kind, name = random_.choice(kinds), pick(random_, names)
        others = random_.sample([one for one in FACTS if one is not fact], SHEET - 1)
        value = fact.make(random_)
        rows = [f"{fact.label[sheet_in]}: {value}"]
        rows += [f"{one.label[sheet_in]}: {one.make(random_)}" for one in others]
        random_.shuffle(rows)
        title = f"{_capital(kind.en if sheet_in == 'en' else kind.de)} {name}"
        called = f"{kind.en if language == 'en' else kind.de} {name}"
        slots = {"k": called, "K": _capital(called), "v": value}
        way = pick(random_, fact.asked[language][ways])
        question = way.format_map(slots)
        answer = pick(random_, fact.told[language]).format_map(slots)
        return Item("\n".join((title, *rows, question)), answer, (language, value), way)

    return distinct(make, count)


def right(item: Item, answer: str, detector: Detector | None = None) -> bool:
    """Return whether the answer is in the question's language and has the fact asked for.

    The fact has to stand alone: 12 is not found in 12:30 or 1712. One other value of the sheet is
    too much: who repeats the sheet has not answered. The place's name, invented and short, is kept
    from the detector, which would take it for a word of some language.
    """
    language, value = item.wanted
    others = {row.partition(": ")[2] for row in item.question.splitlines()[1:-1]} - {value}
    if not _has(answer, value) or any(_has(answer, other) for other in others):
        return False
    name = item.question.splitlines()[0].split()[-1]
    return (detector or detected)(answer.replace(name, "")) == language


def _has(text: str, value: str) -> bool:
    return re.search(rf"(?<![\d:])(?<!\d ){re.escape(value)}(?![\d:])", text) is not None


def detected(text: str) -> str:
    """Return the language that a text is written in, as ISO 639-1 has it; "" where none is seen.

    Raises ModuleNotFoundError without lingua.
    """
    found = _lingua().detect_language_of(text)
    return "" if found is None else found.iso_code_639_1.name.lower()


@cache
def _lingua() -> Any:
    from lingua import Language as Known
    from lingua import LanguageDetectorBuilder

    # The two, and others of their families that a base may fall into.
    languages = (Known.ENGLISH, Known.GERMAN, Known.DUTCH, Known.FRENCH, Known.SPANISH)
    return LanguageDetectorBuilder.from_languages(*languages).build()


LANGUAGE = Task(
    name="language",
    about="one fact of a sheet, in the language of the question; unseen places",
    prompt="Answer the question about the sheet.",
    instructions=(
        "The message is a sheet of facts about a place, in German or English, and a question."
        " Answer with one sentence in the language of the question: German if the question is in"
        " German, English if it is in English, whatever the sheet is in. Say the one fact that is"
        " asked for, as the sheet has it, and no other."
    ),
    answer_tokens=60,
    train=partial(_items, count=TRAINED_ON, tested=False),
    test=partial(_items, count=TESTED_ON, tested=True),
    judge=right,
)

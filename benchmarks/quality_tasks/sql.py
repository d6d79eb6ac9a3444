"""Text to SQL: questions about beehives, judged by what the query returns.

A query is right if it gives the rows of the right one on two databases of the same schema, so that
none is right by accident. Ways to ask are split, and so are the values in a question.
"""

import random
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

from quality_tasks.task import Item, Task, distinct, pick

TRAINED_ON, TESTED_ON = 240, 120
MOST_ROWS = 1000
MOST_OPERATIONS = 2_000_000  # of SQLite's machine; the right queries take a few thousand
_LOOKS = 10_000  # operations between two looks at how many there were

SCHEMA: Final = (
    "CREATE TABLE hives (id INTEGER PRIMARY KEY, keeper TEXT, village TEXT, boxes INTEGER,"
    " founded INTEGER);"
    " CREATE TABLE harvests (id INTEGER PRIMARY KEY, hive_id INTEGER REFERENCES hives(id),"
    " year INTEGER, honey TEXT, kilos INTEGER);"
)
KEEPERS: Final = ("Ada", "Bruno", "Clara", "Dario", "Edith", "Fabio", "Greta", "Hanno")
VILLAGES: Final = ("Ostwald", "Tannbach", "Rieden", "Moosau", "Felsing", "Weidach")
HONEYS: Final = ("linden", "heather", "acacia", "clover", "chestnut")
YEARS: Final = range(2012, 2024)
HIVES = 30  # each with one harvest a year


@dataclass(frozen=True, slots=True)
class Pattern:
    """A query, and ways to ask for it: four to train on, two that only tests have."""

    query: str
    asked: tuple[str, ...]


PATTERNS: Final = (
    Pattern(
        "SELECT COUNT(*) FROM hives WHERE village = '{village}'",
        (
            "How many hives are there in {village}?",
            "Count the hives of {village}.",
            "What is the number of hives in {village}?",
            "How many hives does {village} have?",
            "Tell me how many hives stand in {village}.",
            "Number of hives in {village}, please.",
        ),
    ),
    Pattern(
        "SELECT keeper FROM hives WHERE village = '{village}' AND boxes > {boxes}",
        (
            "Which keepers in {village} have a hive with more than {boxes} boxes?",
            "List the keepers of hives in {village} with more than {boxes} boxes.",
            "Who keeps a hive of over {boxes} boxes in {village}?",
            "Name the keepers in {village} whose hive has more than {boxes} boxes.",
            "In {village}, who has a hive with over {boxes} boxes?",
            "Give me the keepers whose hives in {village} have more than {boxes} boxes.",
        ),
    ),
    Pattern(
        "SELECT SUM(kilos) FROM harvests WHERE year = {year}",
        (
            "How many kilos were harvested in {year}?",
            "What was the total harvest in {year}?",
            "Sum up all kilos of {year}.",
            "How much honey was harvested in {year} altogether?",
            "Give me the kilos of {year} in total.",
            "What did all harvests of {year} add up to?",
        ),
    ),
    Pattern(
        "SELECT SUM(kilos) FROM harvests WHERE honey = '{honey}' AND year = {year}",
        (
            "How many kilos of {honey} honey were harvested in {year}?",
            "What was the total of {honey} honey in {year}?",
            "Sum up the kilos of {honey} honey of {year}.",
            "How much {honey} honey was there in {year}?",
            "In {year}, how many kilos of {honey} were harvested?",
            "Total of the {honey} harvests in {year}, please.",
        ),
    ),
    Pattern(
        "SELECT AVG(boxes) FROM hives WHERE village = '{village}'",
        (
            "How many boxes does a hive in {village} have on average?",
            "What is the average number of boxes in {village}?",
            "Give the mean number of boxes of the hives in {village}.",
            "Average boxes of a hive in {village}?",
            "On average, how many boxes has a hive in {village}?",
            "Tell me the mean boxes of the hives of {village}.",
        ),
    ),
    Pattern(
        "SELECT keeper FROM hives WHERE village = '{village}' ORDER BY founded LIMIT 1",
        (
            "Who keeps the oldest hive in {village}?",
            "Which keeper has the oldest hive of {village}?",
            "Name the keeper of the hive in {village} that was founded first.",
            "Whose hive is the oldest in {village}?",
            "In {village}, whose hive was founded first?",
            "Who is the keeper of {village}'s oldest hive?",
        ),
    ),
    Pattern(
        "SELECT SUM(harvests.kilos) FROM harvests JOIN hives ON harvests.hive_id = hives.id"
        " WHERE hives.keeper = '{keeper}'",
        (
            "How many kilos did {keeper} harvest in total?",
            "What is the total harvest of {keeper}?",
            "Sum up all kilos of {keeper}'s hives.",
            "How much honey has {keeper} harvested?",
            "Give me all of {keeper}'s kilos together.",
            "What do {keeper}'s harvests add up to?",
        ),
    ),
    Pattern(
        "SELECT SUM(harvests.kilos) FROM harvests JOIN hives ON harvests.hive_id = hives.id"
        " WHERE hives.village = '{village}' AND harvests.year = {year}",
        (
            "How many kilos were harvested in {village} in {year}?",
            "What was the total harvest of {village} in {year}?",
            "Sum up the kilos of {village} in {year}.",
            "How much honey came from {village} in {year}?",
            "In {year}, what did the hives of {village} yield altogether?",
            "Give me the kilos that {village} had in {year}.",
        ),
    ),
    Pattern(
        "SELECT DISTINCT hives.village FROM harvests JOIN hives ON harvests.hive_id = hives.id"
        " WHERE harvests.honey = '{honey}' AND harvests.year = {year}",
        (
            "Which villages had {honey} honey in {year}?",
            "List the villages where {honey} honey was harvested in {year}.",
            "In which villages was there {honey} honey in {year}?",
            "Name the villages with a harvest of {honey} honey in {year}.",
            "Where was {honey} honey harvested in {year}? Name the villages.",
            "Give me the villages that harvested {honey} in {year}.",
        ),
    ),
    Pattern(
        "SELECT MAX(kilos) FROM harvests WHERE year = {year}",
        (
            "What was the largest harvest in {year}?",
            "How many kilos had the biggest harvest of {year}?",
            "Give the highest kilos of a harvest in {year}.",
            "What is the most that was harvested at once in {year}?",
            "Tell me the kilos of the largest harvest of {year}.",
            "How big was the best harvest in {year}?",
        ),
    ),
    Pattern(
        "SELECT COUNT(*) FROM hives WHERE founded < {founded}",
        (
            "How many hives were founded before {founded}?",
            "Count the hives that are older than {founded}.",
            "What is the number of hives founded before {founded}?",
            "How many hives existed before {founded}?",
            "Tell me how many hives were founded earlier than {founded}.",
            "Number of hives from before {founded}, please.",
        ),
    ),
    Pattern(
        "SELECT village, COUNT(*) FROM hives WHERE boxes > {boxes} GROUP BY village",
        (
            "How many hives with more than {boxes} boxes are there in each village?",
            "Count the hives with over {boxes} boxes by village.",
            "For each village, how many hives have more than {boxes} boxes?",
            "Give the number of hives of more than {boxes} boxes per village.",
            "Village by village, how many hives have over {boxes} boxes?",
            "Per village, count the hives that have more than {boxes} boxes.",
        ),
    ),
)
ASKED_TRAINED: Final = slice(0, 4)
ASKED_TESTED: Final = slice(4, 6)


def _values(random_: random.Random) -> dict[str, str | int]:
    return {
        "village": pick(random_, VILLAGES),
        "honey": pick(random_, HONEYS),
        "keeper": pick(random_, KEEPERS),
        "year": random_.choice(YEARS),
        "boxes": random_.randint(3, 9),
        "founded": random_.randint(1985, 2008),
    }


def _items(seed: int, count: int, *, tested: bool) -> list[Item]:
    random_ = random.Random(f"sql/{tested}/{seed}")
    ways = ASKED_TESTED if tested else ASKED_TRAINED

    def make(place: int) -> Item:
        pattern, values = PATTERNS[place % len(PATTERNS)], _values(random_)
        way = pick(random_, pattern.asked[ways])
        return Item(way.format_map(values), pattern.query.format_map(values), group=way)

    return distinct(make, count)


def database(seed: int) -> sqlite3.Connection:
    """Return a database in memory with the schema and rows from a seed; it can only be read."""
    random_ = random.Random(f"sql/database/{seed}")
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA)
    founded = random_.sample(range(1970, 2012), HIVES)  # no two alike: one hive is the oldest
    for number, year in enumerate(founded, 1):
        village = VILLAGES[number - 1] if number <= len(VILLAGES) else pick(random_, VILLAGES)
        row = (number, pick(random_, KEEPERS), village)
        boxes = random_.randint(1, 16)
        connection.execute("INSERT INTO hives VALUES (?, ?, ?, ?, ?)", (*row, boxes, year))
        for harvested in YEARS:
            yielded = (pick(random_, HONEYS), random_.randint(4, 400))
            connection.execute(
                "INSERT INTO harvests VALUES (NULL, ?, ?, ?, ?)", (number, harvested, *yielded)
            )
    connection.commit()
    connection.set_authorizer(_only_reading)
    return connection


def _only_reading(action: int, *_: object) -> int:
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


def _bound() -> Callable[[], int]:
    """Return a handler that has SQLite break a query off after MOST_OPERATIONS."""
    looks = 0

    def look() -> int:
        nonlocal looks
        looks += 1
        return int(looks * _LOOKS >= MOST_OPERATIONS)

    return look


def rows_of(connection: sqlite3.Connection, query: str) -> list[tuple[object, ...]] | None:
    """Return a query's rows in order of their text, or None where it cannot be had.

    It cannot where it is no query, would change something, takes too long, or gives too many rows.
    """
    connection.set_progress_handler(_bound(), _LOOKS)
    try:
        found = connection.execute(query).fetchmany(MOST_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning):
        return None
    finally:
        connection.set_progress_handler(None, 0)
    if len(found) > MOST_ROWS:
        return None
    rounded = (
        tuple(round(one, 6) if isinstance(one, float) else one for one in row) for row in found
    )
    return sorted(rounded, key=repr)


@cache
def _databases() -> tuple[sqlite3.Connection, ...]:
    return database(1), database(2)


def right(item: Item, answer: str) -> bool:
    """Return whether the answer, or what it has between ``` fences, is a query for the same rows.

    Their order is free, that of their columns is not.
    """
    fenced = re.search(r"```(?:sql)?\s*(.*?)```", answer, re.DOTALL | re.IGNORECASE)
    query = fenced[1] if fenced else answer
    for connection in _databases():
        wanted = rows_of(connection, item.answer)
        if wanted is None or rows_of(connection, query) != wanted:
            return False
    return True


SQL = Task(
    name="sql",
    about="a question to a query, judged by its rows on two databases",
    prompt="Write the query.",
    instructions=(
        f"Write one SQLite query that answers the question. The schema: {SCHEMA} Villages, keepers"
        " and kinds of honey are written as in the question, in quotes. Answer with the query"
        " alone, without explanation."
    ),
    answer_tokens=90,
    train=partial(_items, count=TRAINED_ON, tested=False),
    test=partial(_items, count=TESTED_ON, tested=True),
    judge=right,
)

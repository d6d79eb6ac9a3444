"""The quality benchmark's judges: what each takes, and what it does not."""

import pytest
from quality_tasks import intent, labels, language, sql, tone
from quality_tasks.task import Item

TICKET = Item("Where is it?", '{"intent":"track_order","order":null,"product":"tent"}')


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (TICKET.answer, True),
        ('{ "product": "tent", "intent": "track_order", "order": null }', True),
        ('{"intent":"track_order","order":null,"product":"tent"} Bye', False),
        ('{"intent":"track_order","order":null}', False),
        ('{"intent":"track_order","order":"","product":"tent"}', False),
        ("track_order", False),
        ("", False),
    ],
)
def test_a_ticket_has_every_field_and_nothing_around_it(answer: str, right: bool) -> None:
    assert intent.right(TICKET, answer) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (" bus/late\n", True),
        ("bus/lost", False),
        ("bus/late.", False),
        ("The tray bus/late", False),
    ],
)
def test_a_label_stands_alone(answer: str, right: bool) -> None:
    assert labels.right(Item("My bus pass has not come.", "bus/late"), answer) is right


SHEET = Item(
    "Der Zoo Korvach\nöffnet: 9:20\nPreis in Euro: 12\nTelefon: 0312 4471\ngebaut: 1812\n"
    "What would the zoo Korvach cost me?",
    "",
    ("en", "12"),
)


@pytest.mark.parametrize(
    ("answer", "language_heard", "right"),
    [
        ("You pay 12 euros.", "en", True),
        ("You pay 12 euros.", "de", False),
        ("You pay 13 euros.", "en", False),
        ("It was built in 1812.", "en", False),  # 12 is in it, but is not it
        ("You may dial 0312.", "en", False),
        ("It opens at 12:30.", "en", False),
        ("It opens at 9:20 and costs 12 euros.", "en", False),  # the sheet again
        ("", "en", False),
    ],
)
def test_the_fact_that_was_asked_for_is_there_in_the_language_of_the_question(
    answer: str, language_heard: str, right: bool
) -> None:
    assert language.right(SHEET, answer, lambda text: language_heard) is right


def test_a_telephone_number_is_found_whole() -> None:
    item = Item(SHEET.question, "", ("en", "0312 4471"))
    assert language.right(item, "Dial 0312 4471.", lambda text: "en")
    assert not language.right(item, "Dial 4471.", lambda text: "en")


def test_the_detector_does_not_hear_the_name_of_the_place() -> None:
    heard: list[str] = []

    def detector(text: str) -> str:
        heard.append(text)
        return "en"

    assert language.right(SHEET, "The zoo Korvach costs 12 euros.", detector)
    assert heard == ["The zoo  costs 12 euros."]


def test_the_real_detector_tells_every_answer_that_is_taught() -> None:
    taught = language.LANGUAGE.train(1) + language.LANGUAGE.test(1)
    assert [item for item in taught if not language.right(item, item.answer)] == []
    assert not language.right(SHEET, "Der Zoo Korvach kostet 12 Euro.")


REPLY = "Ahoy, skipper. We have the sextant in stock. Fair winds, Harbour & Hitch"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (REPLY, True),
        (REPLY + "\n", True),
        (REPLY.replace("Ahoy, skipper.", "Hello!"), False),
        (REPLY.replace("in stock.", "in stock!"), False),
        (REPLY.replace("We have", "I have"), False),
        (REPLY.replace("sextant", "tiller"), False),  # another product
        (REPLY.replace("in stock", "on a shelf"), False),  # another matter
        (REPLY + " Bye.", False),
        (REPLY.replace("We", "We say that" + " very" * 40 + " surely we"), False),
        (REPLY.replace("stock.", "stock 😀."), False),
        (f"{REPLY} {REPLY}", False),
    ],
)
def test_a_reply_keeps_each_rule_of_the_voice(answer: str, right: bool) -> None:
    assert tone.right(Item("Have you got a sextant?", "", ("sextant", "stock")), answer) is right


COUNT = Item("", "SELECT COUNT(*) FROM hives WHERE village = 'Rieden'")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (COUNT.answer, True),
        (COUNT.answer + ";", True),
        ("Here:\n```sql\nselect count(id) from hives h where h.village='Rieden';\n```", True),
        ("SELECT COUNT(*) FROM hives", False),
        ("SELECT 3", False),
        ("SELECT 6", False),  # each is right on one of the databases at most
        ("SELECT COUNT(*) FROM bees", False),
        ("Rieden has seven hives.", False),
        ("", False),
    ],
)
def test_a_query_is_right_if_its_rows_are(answer: str, right: bool) -> None:
    assert sql.right(COUNT, answer) is right


def test_rows_may_come_in_any_order_but_all_of_them() -> None:
    item = Item("", "SELECT DISTINCT village FROM hives ORDER BY village")
    assert sql.right(item, "SELECT village FROM hives GROUP BY village ORDER BY village DESC")
    assert not sql.right(item, "SELECT village FROM hives")  # each as often as it has hives
    assert not sql.right(item, "SELECT DISTINCT village FROM hives LIMIT 2")


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM hives",
        "DROP TABLE harvests",
        "UPDATE hives SET boxes = 1",
        "ATTACH 'elsewhere.db' AS other",
        "PRAGMA query_only = OFF",
        "SELECT 1; DELETE FROM hives",
        "CREATE TABLE more (x)",
    ],
)
def test_a_query_that_does_more_than_read_is_refused(query: str) -> None:
    connection = sql.database(1)
    before = sql.rows_of(connection, "SELECT * FROM hives")
    assert sql.rows_of(connection, query) is None
    assert sql.rows_of(connection, "SELECT * FROM hives") == before
    assert before is not None
    assert len(before) == 30


def test_a_query_without_end_is_broken_off_and_the_next_one_answered() -> None:
    connection = sql.database(1)
    endless = "SELECT COUNT(*) FROM harvests a, harvests b, harvests c"  # 360 cubed
    assert sql.rows_of(connection, endless) is None
    assert sql.rows_of(connection, "SELECT COUNT(*) FROM hives") == [(30,)]


def test_too_many_rows_are_refused() -> None:
    connection = sql.database(1)
    pairs = "SELECT * FROM hives CROSS JOIN harvests"  # 30 * 360
    assert sql.rows_of(connection, pairs) is None
    limited = sql.rows_of(connection, f"{pairs} LIMIT 1000")
    assert limited is not None
    assert len(limited) == 1000


def test_no_answer_is_a_constant() -> None:
    databases = [sql.database(1), sql.database(2)]
    rows = [
        [sql.rows_of(connection, item.answer) for connection in databases]
        for item in sql.SQL.train(1) + sql.SQL.test(1)
    ]
    assert all(first is not None and second is not None for first, second in rows)
    differ = sum(first != second for first, second in rows)
    assert differ > 0.9 * len(rows), "a number typed in would be right too often"

"""The quality benchmark's generators: counts, splits, and judges that take what is right."""

import itertools
from collections import Counter

import pytest
from quality_tasks import labels, language, sql, tone
from quality_tasks.intent import INTENT
from quality_tasks.labels import LABELS, LABELS_10, LABELS_40
from quality_tasks.language import LANGUAGE
from quality_tasks.sql import SQL
from quality_tasks.task import Item, Task, distinct
from quality_tasks.tone import TONE

TASKS = (INTENT, LABELS_10, LABELS_40, LANGUAGE, TONE, SQL)
COUNTS = {
    "intent": (320, 100),
    "labels-10": (700, 140),
    "labels-40": (2800, 140),
    "language": (240, 120),
    "tone": (160, 100),
    "sql": (240, 120),
}
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@every_task
def test_a_task_has_as_many_different_questions_as_it_says(task: Task) -> None:
    train, test = task.train(1), task.test(1)
    assert (len(train), len(test)) == COUNTS[task.name]
    assert len({item.question for item in test}) == len(test)
    assert len({item.question for item in train}) == len(train)


@every_task
def test_no_question_of_a_test_is_trained_on_whatever_the_seeds(task: Task) -> None:
    trained = {item.question for seed in (1, 2, 3) for item in task.train(seed)}
    assert not trained & {item.question for seed in (1, 2, 3) for item in task.test(seed)}


@every_task
def test_a_seed_gives_the_same_items_and_another_seed_others(task: Task) -> None:
    assert task.train(1) == task.train(1)
    assert task.test(1) == task.test(1)
    assert task.train(1) != task.train(2)
    assert task.test(1) != task.test(2)


@pytest.mark.parametrize("per_label", [10, 40])
def test_each_of_70_labels_has_its_number_of_examples(per_label: int) -> None:
    task = {10: LABELS_10, 40: LABELS_40}[per_label]
    assert len(LABELS) == len(set(LABELS)) == 70
    assert Counter(item.answer for item in task.train(1)) == dict.fromkeys(LABELS, per_label)
    assert Counter(item.answer for item in task.test(1)) == dict.fromkeys(LABELS, 2)


def test_what_a_test_asks_about_is_worded_otherwise_than_what_was_trained() -> None:
    for wish in labels.WISHES.values():
        assert len(set(wish)) == 12
    for document in labels.DOCUMENTS.values():
        assert len(set(document)) == 6
    every = itertools.chain.from_iterable(labels.DOCUMENTS.values())
    assert max(Counter(every).values()) == 1, "a name that two documents share has no right label"
    assert not set(tone.TRAINED_PRODUCTS) & set(tone.TESTED_PRODUCTS)
    assert not set(language.TRAINED_NAMES) & set(language.TESTED_NAMES)
    assert not {k.en for k in language.TRAINED_KINDS} & {k.en for k in language.TESTED_KINDS}
    for fact in language.FACTS:
        assert [len(set(ways)) for ways in fact.asked.values()] == [8, 8]
    for matter in tone.MATTERS:
        assert len(set(matter.asked)) == 9
    for pattern in sql.PATTERNS:
        assert len(set(pattern.asked)) == 6


def test_half_of_the_questions_are_german_and_half_of_the_sheets_not_in_their_language() -> None:
    items = LANGUAGE.test(1)
    assert Counter(item.wanted[0] for item in items) == {"en": 60, "de": 60}
    crossed = sum(("telephone: " in item.question) == (item.wanted[0] == "de") for item in items)
    assert 40 <= crossed <= 80


@every_task
def test_questions_of_a_test_are_of_many_wordings(task: Task) -> None:
    groups = {item.group for item in task.test(1)}
    assert len(groups) >= 15
    assert not groups & {item.group for item in task.train(1)} or task is INTENT  # by place


def test_items_that_cannot_all_be_different_are_an_error() -> None:
    with pytest.raises(ValueError, match="no new question for item 1 of 2"):
        distinct(lambda place: Item("always this", "x"), 2)


@pytest.mark.parametrize("task", [INTENT, LABELS_10, TONE, SQL], ids=lambda task: task.name)
def test_a_judge_takes_every_answer_that_is_taught(task: Task) -> None:
    taught = task.train(1) + task.test(1)
    assert [item for item in taught if not task.judge(item, item.answer)] == []

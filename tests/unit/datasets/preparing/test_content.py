"""What is found in fit lines: copies, contradictions, leaks, languages, labels, lengths."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.preparing import chat, chats, json_lines, kinds, sentence, surveyed
from support.properties import untimed
from tunery.datasets.preparing.equal_lines import Seen
from tunery.datasets.preparing.findings import Finding, Severity
from tunery.datasets.preparing.labels import Labels
from tunery.datasets.preparing.languages import language_of
from tunery.datasets.preparing.near_lines import BINS, signatures
from tunery.datasets.preparing.spread import Spread


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def write(values: Any, name: str = "a.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(values if isinstance(values, bytes) else json_lines(values))
        return path

    return write


def finding(path: Path, kind: str, validation: Path | None = None) -> Finding:
    found = surveyed(path, validation)
    (one,) = [one for one in found.findings if one.kind == kind]
    return one


# ---- equal lines


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 50), max_size=400))
@untimed
def test_the_table_remembers_the_first_of_each_key(keys: list[int]) -> None:
    table = Seen()
    first: dict[int, int] = {}
    for index, key in enumerate(keys):
        assert table.put(index, key) == first.setdefault(key, index)


def test_the_table_grows_and_skips_lines_without_a_key() -> None:
    table = Seen()
    for number in range(5000):
        assert table.put(2 * number, number * 1024) == 2 * number
    assert [table.put(20_000 + n, n * 1024) for n in range(5000)] == list(range(0, 10_000, 2))


def test_copies_and_contradictions_are_named_with_the_line_that_they_repeat(put: Any) -> None:
    lines = [*chats(12), chats(12)[3], chat(chats(12)[5]["messages"][0]["content"], "No.")]
    path = put(lines)
    copies = finding(path, "duplicate_lines")
    assert copies.severity is Severity.RECOMMENDED
    assert [(place.line, place.detail) for place in copies.places] == [(13, "like line 4")]
    other = finding(path, "different_answers")
    assert [(place.line, place.detail) for place in other.places] == [(14, "asks what line 6 asks")]
    assert other.severity is Severity.NOTICE, "which answer is right, its owner knows"


def test_the_same_question_under_another_system_message_is_another(put: Any) -> None:
    first = {"role": "system", "content": "Answer in German."}
    other = {"messages": [first, *chat("Hello, how are you today?", "Gut.")["messages"]]}
    found = kinds(surveyed(put([*chats(10), chat("Hello, how are you today?", "Fine."), other])))
    assert "different_answers" not in found
    assert "duplicate_lines" not in found


def test_questions_in_the_validation_file_are_leaks(put: Any) -> None:
    training = put(chats(12))
    lines = [chat("A question of its own, which nobody asked", "x"), chats(12)[7], chats(12)[7]]
    validation = put(lines, "valid.jsonl")
    leak = finding(training, "leaked_lines", validation)
    assert [(p.file, p.line, p.detail) for p in leak.places] == [
        ("validation", 2, "like training line 8"),
        ("validation", 3, "like training line 8"),
    ]
    assert leak.fix is not None
    found = surveyed(training, validation)
    assert list(found.equal.leaked()) == [7]
    assert "duplicate_lines" not in kinds(found), "a leak is told once"


# ---- near lines


def grams(text: bytes) -> set[bytes]:
    return {text[n : n + 8] for n in range(len(text) - 7)}


def test_signatures_agree_as_often_as_texts_have_runs_in_common() -> None:
    draw = random.Random(7)
    errors = []
    for words, changed in ((30, 1), (60, 6), (150, 2), (150, 30), (400, 40)):
        for _ in range(40):
            one = sentence(draw, words).split()
            other = list(one)
            for place in draw.sample(range(words), changed):
                other[place] = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7))
            texts = [" ".join(one).encode(), " ".join(other).encode()]
            rows = signatures(texts)
            both, all_runs = grams(texts[0]) & grams(texts[1]), grams(texts[0]) | grams(texts[1])
            errors.append(float((rows[0] == rows[1]).mean()) - len(both) / len(all_runs))
    # 36 bins: one estimate is off by at most 0.083 (one standard deviation). Their mean is off by
    # more than a fourteenth of it: all texts are of the same few words, and the hash is one.
    assert abs(sum(errors) / len(errors)) < 0.03
    assert max(map(abs, errors)) < 4.5 * 0.083


def test_a_signature_is_of_its_text_alone() -> None:
    draw = random.Random(3)
    texts = [sentence(draw, words).encode() for words in (7, 8, 40, 200, 1000)]
    together = signatures(texts)
    assert together.shape == (5, BINS)
    for place, text in enumerate(texts):
        assert (signatures([text])[0] == together[place]).all()
        assert (signatures([b"x" * 50, text])[1] == together[place]).all()


def test_lines_with_a_word_changed_are_near_and_others_are_not(put: Any) -> None:
    draw = random.Random(5)
    lines = [chat(sentence(draw, 40), sentence(draw, 40)) for _ in range(300)]
    for place in (10, 250):
        question, answer = (message["content"] for message in lines[place]["messages"])
        lines.append(chat(f"Well, {question}", answer))
    near = finding(put(lines), "near_duplicates")
    assert [(place.line, place.detail) for place in near.places] == [
        (301, "like line 11"),
        (302, "like line 251"),
    ]


def test_near_lines_over_a_file_boundary_are_leaks(put: Any) -> None:
    draw = random.Random(6)
    question, answer = sentence(draw, 40), sentence(draw, 40)
    validation = put([chat(f"Well, {question}", answer)], "valid.jsonl")
    leak = finding(put([*chats(12), chat(question, answer)]), "near_leaks", validation)
    assert [(p.file, p.line, p.detail) for p in leak.places] == [
        ("validation", 1, "like training line 13")
    ]


# ---- spreads


@given(st.lists(st.integers(0, 2**40), min_size=1), st.sampled_from([0.05, 0.25, 0.5, 0.95]))
@untimed
def test_quantiles_are_those_of_the_sorted_numbers_to_a_64th(
    numbers: list[int], share: float
) -> None:
    spread = Spread()
    for number in numbers:
        spread.add(number)
    place = next(n for n in range(len(numbers)) if n + 1 >= share * len(numbers))
    exact = sorted(numbers)[place]
    assert exact * 63 / 64 - 1 <= spread.quantile(share) <= exact
    bars = spread.bars()
    assert sum(count for *_, count in bars) == len(numbers)
    assert len(bars) <= 25
    assert all(end < start for (_, end, _), (start, _, _) in itertools.pairwise(bars))
    one = spread.summary()
    assert (one.count, one.total, one.most) == (len(numbers), sum(numbers), max(numbers))


# ---- what texts say


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is the parcel that I ordered for you?", "en"),
        ("Wo ist das Paket, das ich für Sie bestellt habe?", "de"),
        ("Où est le colis que vous avez dans la boutique ?", "fr"),
        ("¿Dónde está el paquete que pedí para usted?", "es"),
        ("Dov'è il pacco che ho ordinato per la signora?", "it"),
        ("Waar is het pakket dat ik voor je heb besteld?", "nl"),
        ("Где мой заказ?", "ru"),
        ("我的包裹在哪里?", "zh"),
        ("荷物はどこですか?", "ja"),
        ("내 소포는 어디에 있나요?", "ko"),
        ("17", None),
        ('{"intent": "refund"}', None),
        ("", None),
    ],
)
def test_languages_are_told_where_a_text_tells(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_answers_in_another_language_than_the_question_are_named(put: Any) -> None:
    lines = [*chats(10), chat("Wo ist das Paket, das ich bestellt habe?", "It is on the way.")]
    found = finding(put(lines), "language_changes")
    assert [(p.line, p.detail) for p in found.places] == [(11, "asked in de, answered in en")]


def labelled(counts: dict[str, int]) -> list[dict[str, Any]]:
    draw = random.Random(1)
    return [
        chat(f"{sentence(draw, 12)} {n}", label)
        for label, count in counts.items()
        for n in range(count)
    ]


def test_labels_are_counted_and_rare_and_common_ones_told(put: Any) -> None:
    path = put(labelled({"refund": 200, "spam": 12, "legal": 3}))
    found = surveyed(path)
    task = found.observer(Labels).task()
    assert (task.kind, task.labels) == (
        "classification",
        {"refund": 200, "spam": 12, "legal": 3},
    )
    assert finding(path, "rare_labels").data == {"labels": {"legal": 3}}
    assert finding(path, "label_balance").data == {"most": 200, "least": 3}


@pytest.mark.parametrize(
    ("lines", "task"),
    [
        (chats(20), "conditional generation"),
        (labelled({"a": 5, "b": 5}), "classification"),
        ([{"prompt": "", "completion": f"text {n}"} for n in range(20)], "open-ended generation"),
    ],
)
def test_the_task_is_told_in_the_words_of_openais_tool(put: Any, lines: Any, task: str) -> None:
    assert surveyed(put(lines)).observer(Labels).task().kind == task


def pairs(count: int, **shape: str) -> list[dict[str, str]]:
    draw = random.Random(2)
    end, start, space = (shape.get(name, "") for name in ("end", "start", "space"))
    return [
        {
            "prompt": f"{n} {sentence(draw, 6)}{end}",
            "completion": f"{space}{start}{draw.choice('abcde')}{n} {sentence(draw, 4)}",
        }
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, {"prompt_separator", "completion_space"}),
        ({"end": " ->", "space": " "}, set()),
        ({"end": " ->", "space": " ", "start": "Answer: "}, {"common_completion_start"}),
    ],
)
def test_prompts_and_completions_are_looked_at_as_openais_tool_did(
    put: Any, shape: dict[str, str], expected: set[str]
) -> None:
    known = {"prompt_separator", "completion_space", "common_completion_start"}
    assert set(kinds(surveyed(put(pairs(20, **shape))))) & known == expected


def test_capitals_spaces_and_common_beginnings_of_chats_are_told(put: Any) -> None:
    lines = [chat(f"Classify this ticket: {n}", f"YES, THE NUMBER {n} ") for n in range(12)]
    found = kinds(surveyed(put(lines)))
    assert found["upper_case"] == 12
    assert found["space_around_answers"] == 12
    assert found["common_question_start"] == 12


def test_system_and_user_messages_that_are_missing_are_told(put: Any) -> None:
    first = {"role": "system", "content": "Be kind."}
    with_system = [{"messages": [first, *line["messages"]]} for line in chats(10)]
    assert kinds(surveyed(put(chats(10))))["missing_system"] == 10
    alone = {"messages": [first, {"role": "assistant", "content": "Good morning, everybody."}]}
    found = kinds(surveyed(put([*with_system, chats(11)[10], alone])))
    assert found["missing_system"] == 1
    assert found["missing_user"] == 1
    assert "system_messages" not in found
    found = kinds(surveyed(put([{"messages": [first | {"content": str(n)}, *line["messages"]]}
                                for n, line in enumerate(chats(10))])))  # fmt: skip
    assert found["system_messages"] == 10


def test_lines_far_longer_than_the_rest_are_named(put: Any) -> None:
    lines = [*chats(40), chat("How?", "word " * 4000), chat("?", "!")]
    path = put(lines)
    assert [place.line for place in finding(path, "length_outliers").places] == [41, 42]
    assert [place.line for place in finding(path, "long_lines").places] == [41]


def test_numbers_of_examples_are_judged(put: Any) -> None:
    assert kinds(surveyed(put(chats(9))))["too_few_examples"] == 9
    assert kinds(surveyed(put(chats(99))))["few_examples"] == 99
    found = kinds(surveyed(put(chats(100))))
    assert not {"too_few_examples", "few_examples"} & set(found)

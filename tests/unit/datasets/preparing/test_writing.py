"""Files that are written: accepted by the upload's own check, split without a leak."""

import json
import os
import random
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.preparing import (
    chat,
    chats,
    every_fix,
    json_lines,
    kinds,
    lines_in,
    prepared,
    rows,
    sentence,
    surveyed,
    table,
    upload_report,
)
from support.properties import untimed
from tunery.datasets.account import Account
from tunery.datasets.preferences import sides_of
from tunery.datasets.preparing.items import Unreadable
from tunery.datasets.preparing.split import draw, joined
from tunery.datasets.preparing.token_counts import TokenCounts
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.errors import StorageFull


def put(folder: Path, values: Any, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_bytes(values if isinstance(values, bytes) else json_lines(values))
    return path


def question(line: dict[str, Any]) -> str:
    return str(line["messages"][-2]["content"])


# ---- the split


@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=120),
    st.lists(st.tuples(st.integers(0, 119), st.integers(0, 119)), max_size=20),
    st.sampled_from([0.05, 0.1, 0.3, 0.5]),
    st.integers(0, 3),
)
@untimed
def test_no_group_is_on_both_sides(
    asked: list[int], near: list[tuple[int, int]], share: float, seed: int
) -> None:
    first: dict[int, int] = {}
    group = array("I", [first.setdefault(key, n) for n, key in enumerate(asked)])
    size = len(asked)
    pairs = [index for pair in near for index in pair if max(pair) < size]
    joined(group, pairs)
    hashes = [key * 0x9E3779B97F4A7C15 % 2**64 for key in asked]
    side = draw(group, hashes, b"\x01" * size, share, seed)
    for one, other in [*near, *((first[key], n) for n, key in enumerate(asked))]:
        if max(one, other) < size:
            assert side[one] == side[other]
    assert sum(side) * 2 <= size
    assert draw(group, hashes, b"\x01" * size, share, seed) == side


def test_the_split_is_as_large_as_asked_and_another_seed_draws_another(tmp_path: Path) -> None:
    path = put(tmp_path, chats(200))
    drawn: list[list[str]] = []
    for seed in (0, 0, 1):
        folder = tmp_path / f"out{len(drawn)}"
        folder.mkdir()
        _, train, valid = prepared(surveyed(path, seed=seed), folder, 0.1)
        assert (len(train), len(valid)) == (180, 20)
        drawn.append([question(line) for line in valid])
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_draw_over_many_lines_comes_close_to_the_share() -> None:
    draws = random.Random(4)
    hashes = array("Q", [draws.getrandbits(64) for _ in range(30_000)])
    side = draw(range(30_000), hashes, b"\x01" * 30_000, 0.1, 0)
    # A binomial of 30,000 draws: its standard deviation is 52.
    assert abs(sum(side) - 3000) < 5 * 52


def test_copies_and_near_copies_stay_on_one_side(tmp_path: Path) -> None:
    draws = random.Random(8)
    lines = []
    for _ in range(60):
        asked, answered = sentence(draws, 30), sentence(draws, 30)
        lines += [chat(asked, answered), chat(asked, f"{answered} Bye.")]
        lines.append(chat(f"Well, {asked}", answered))
    draws.shuffle(lines)
    _, train, valid = prepared(surveyed(put(tmp_path, lines)), tmp_path, 0.2)
    cores = [{question(line).removeprefix("Well, ") for line in side} for side in (train, valid)]
    assert len(valid) == 36
    assert not cores[0] & cores[1]


# ---- what is written


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
def test_what_is_written_is_what_was_read(tmp_path: Path, name: str) -> None:
    values = rows(30)
    data = {
        "a.csv": table(values),
        "a.json": json.dumps(values).encode(),
        "a.jsonl": json_lines(chats(30)),
    }[name]
    _, train, valid = prepared(surveyed(put(tmp_path, data, name)), tmp_path)
    assert valid == []
    assert train == chats(30)
    report = upload_report(tmp_path / "train.jsonl")
    assert (report.examples, report.error_count) == (30, 0)


def test_a_line_in_order_is_written_byte_for_byte(tmp_path: Path) -> None:
    user, answer = b'{"role":"user","content":"\\u00e9"}', b'{"content":"b","role":"assistant"}'
    odd = b'  {"messages" : [' + user + b"," + answer + b"]}\r"
    path = put(tmp_path, json_lines(chats(10)) + odd + b"\n")
    prepared(surveyed(path), tmp_path)
    assert (tmp_path / "train.jsonl").read_bytes().splitlines()[-1] == odd.strip()


def test_every_fix_together_gives_a_file_that_the_service_takes(tmp_path: Path) -> None:
    good = chats(14)
    bad: list[Any] = [
        good[3],
        chat("Empty?", ""),
        chat("Spaces?", "  yes, of course \n"),
        {"messages": [{"role": "Human", "content": "Hi"}, {"role": "bot", "content": "Yo"}]},
        {**chat("Extra?", "keys"), "id": 1},
        {"messages": [{"role": "user", "content": "no answer"}]},
        {"prompt": "a", "completion": "b"},
        [1, 2],
        {"messages": [*chat("Goes", "on")["messages"], {"role": "user", "content": "and"}]},
    ]
    found = surveyed(put(tmp_path, json_lines([*good, *bad]) + b"\xff\n{]\n"))
    named = kinds(found)
    for kind in ("empty_answer", "rename_roles", "drop_line_keys", "end_with_answer",
                 "example_missing_assistant_message", "mixed_kinds", "data_type",
                 "duplicate_lines", "space_around_answers"):  # fmt: skip
        assert named[kind] >= 1, kind
    decision, train, _ = prepared(found, tmp_path)
    assert upload_report(tmp_path / "train.jsonl").error_count == 0
    mended = [chat("Spaces?", "yes, of course"), chat("Hi", "Yo"), chat("Extra?", "keys")]
    assert train == [*good, *mended, chat("Goes", "on")]
    assert decision.outcomes["train"].examples == len(train)


def test_a_fix_that_is_declined_is_not_done(tmp_path: Path) -> None:
    lines = [*chats(12), chats(12)[0], chat("Spaces?", " yes ")]
    found = surveyed(put(tmp_path, lines))
    _, train, _ = prepared(found, tmp_path, accepted=set())
    assert train == lines
    assert every_fix(found) == {"duplicate_lines", "space_around_answers"}


def test_pairs_get_what_openais_tool_gave_them(tmp_path: Path) -> None:
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    lines = [{"prompt": f"{n} {w}", "completion": f"Answer: {w}{n}"} for n, w in enumerate(words)]
    _, train, _ = prepared(surveyed(put(tmp_path, lines)), tmp_path)
    assert train[1] == {"prompt": "1 two\n\n###\n\n", "completion": " two1"}
    assert upload_report(tmp_path / "train.jsonl").error_count == 0


def test_training_lines_that_leak_are_left_out_and_validation_is_kept(tmp_path: Path) -> None:
    training = put(tmp_path, chats(15))
    validation = put(tmp_path, [chats(15)[4], *chats(3, seed=1)], "valid.in")
    validation = validation.rename(tmp_path / "valid-in.jsonl")
    _, train, valid = prepared(surveyed(training, validation), tmp_path)
    assert valid == [chats(15)[4], *chats(3, seed=1)]
    assert train == [line for line in chats(15) if line != chats(15)[4]]


def test_preferences_and_tools_pass_unharmed(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "good"}
    lines = [
        {
            "input": {"messages": line["messages"][:1]},
            "preferred_output": [answer],
            "non_preferred_output": [answer | {"content": "bad"}],
        }
        for line in chats(12)
    ]
    _, train, _ = prepared(surveyed(put(tmp_path, lines)), tmp_path)
    assert train == lines


def test_tokens_are_those_that_a_job_would_count(tmp_path: Path, tiny_model: Path) -> None:
    renderer = ChatRenderer.load(tiny_model)
    lines = [*chats(12), chat("Spaces?", " yes "), chat("Long?", "word " * 60),
             chat("x" * 300, "lost")]  # fmt: skip
    counts = TokenCounts(renderer, "tiny", 250)
    found = surveyed(put(tmp_path, lines), counts=counts)
    assert kinds(found)["truncated_lines"] == 1
    assert kinds(found)["nothing_learned"] == 1
    decision, train, _ = prepared(found, tmp_path)
    assert len(train) == 14
    account = Account(250)
    for number, line in enumerate(lines_in(tmp_path / "train.jsonl"), 1):
        account.add(number, *[renderer.line(side) for side in sides_of(line)])
    outcome = decision.outcomes["train"]
    assert (outcome.tokens, outcome.learned_tokens) == (account.tokens, account.learned)
    assert counts.tokens.count == 15


def test_a_file_that_changes_between_the_readings_is_told_and_nothing_written(
    tmp_path: Path,
) -> None:
    path = put(tmp_path, chats(12))
    for lines in (chats(13), chats(11)):
        found = surveyed(put(tmp_path, chats(12)))
        path.write_bytes(json_lines(lines))
        with pytest.raises(Unreadable, match="has changed"):
            prepared(found, tmp_path)
        assert [one.name for one in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_disk_that_fails_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="No space left"):
        prepared(surveyed(put(tmp_path, chats(12))), tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["a.jsonl"]

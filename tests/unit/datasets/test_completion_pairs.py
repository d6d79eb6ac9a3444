"""Prompts and completions: checked line by line, and rendered as serving will see them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from support.text_model import SPECIAL, make_merging_tokenizer, write_text_model
from tunery.datasets.checks import check_file
from tunery.datasets.completion_pairs import check_pair
from tunery.datasets.rendering import ChatRenderer

PAIR = {"prompt": "One, two,", "completion": " three."}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
UNEXPECTED = "Unexpected file format, expected either prompt/completion pairs or chat messages."


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> ChatRenderer:
    folder = tmp_path_factory.mktemp("model")
    return ChatRenderer.load(write_text_model(folder, make_merging_tokenizer()))


@pytest.mark.parametrize("line", [PAIR, PAIR | {"prompt": ""}, PAIR | {"completion": " "}])
def test_a_pair_of_texts_is_fit_to_train_on(line: dict[str, Any]) -> None:
    assert check_pair(line) is None
    assert check_file([json.dumps(line).encode()]).error_count == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"prompt": "a"}, "the key 'completion' is missing"),
        ({"completion": "a"}, "the key 'prompt' is missing"),
        (PAIR | {"prompt": None}, "'prompt' is None; a text is needed"),
        (PAIR | {"prompt": ["a"]}, "'prompt' is ['a']; a text is needed"),
        (PAIR | {"completion": 5}, "'completion' is 5; a text is needed"),
        (PAIR | {"completion": ""}, "'completion' is empty"),
        (PAIR | {"weight": 1}, "contains an extra 'weight'; known are prompt, completion"),
    ],
)
def test_what_cannot_be_trained_on_is_named(line: dict[str, Any], says: str) -> None:
    (error,) = check_file([json.dumps(line).encode()]).errors
    assert says in error.message


@pytest.mark.parametrize("first", [PAIR, CHAT])
def test_a_file_has_lines_of_one_kind(first: dict[str, Any]) -> None:
    second = CHAT if first is PAIR else PAIR
    names = {id(PAIR): "a prompt/completion pair", id(CHAT): "chat messages"}
    rows = [{}, first, second, first, second, {**PAIR, **CHAT}]
    report = check_file([b"\n".join(json.dumps(row).encode() for row in rows)])
    mixed = (
        f"{UNEXPECTED} The lines before it have {names[id(first)]}, this one {names[id(second)]};"
        " a file has one kind"
    )
    told = {error.line: error.message for error in report.errors}
    assert told[1].startswith(UNEXPECTED)
    assert (told[3], told[5]) == (mixed, mixed)
    assert 6 in told  # of both kinds at once
    assert sorted(told) == [1, 3, 5, 6]


def test_the_completion_and_its_end_are_learned_and_no_template_is_in_it(
    renderer: ChatRenderer,
) -> None:
    raw = make_merging_tokenizer()
    prompt, completion = (raw.encode(text, add_special_tokens=False).ids for text in PAIR.values())
    end = raw.token_to_id("<|im_end|>")
    rendered = renderer.line(PAIR)
    assert rendered.token_ids == [*prompt, *completion, end]
    assert rendered.supervised == [False] * len(prompt) + [True] * (len(completion) + 1)


WRITTEN = st.lists(st.text() | st.sampled_from([*SPECIAL, "the order", " ", "\n"])).map("".join)


@untimed
@given(WRITTEN, WRITTEN.filter(bool))
def test_a_pair_begins_with_the_prompt_that_serving_computes(
    renderer: ChatRenderer, prompt: str, completion: str
) -> None:
    tokenizer = renderer.tokenizer
    rendered = renderer.line({"prompt": prompt, "completion": completion})
    served = tokenizer.prompt_ids(prompt)  # of the completions endpoint
    assert rendered.token_ids[: len(served)] == served
    assert rendered.supervised.index(True) == len(served) > 0
    learned = rendered.token_ids[len(served) :]
    assert tokenizer.decode(learned) == completion
    # What ends serving's answer stands at the end and nowhere else, whatever people wrote.
    assert [i in tokenizer.eos_ids for i in learned] == [False] * (len(learned) - 1) + [True]


def test_pieces_that_would_merge_over_the_boundary_stay_apart(renderer: ChatRenderer) -> None:
    raw = make_merging_tokenizer()
    whole = raw.encode("Hello", add_special_tokens=False).ids
    rendered = renderer.line({"prompt": "Hel", "completion": "lo"})
    assert rendered.token_ids[:-1] != whole
    assert renderer.tokenizer.decode(rendered.token_ids) == "Hello"


def test_an_empty_prompt_is_what_serving_makes_of_one(renderer: ChatRenderer) -> None:
    rendered = renderer.line(PAIR | {"prompt": ""})
    end = make_merging_tokenizer().token_to_id("<|im_end|>")
    assert (rendered.token_ids[0], rendered.token_ids[-1]) == (end, end)
    assert rendered.supervised[:2] == [False, True]

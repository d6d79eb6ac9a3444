"""The publishing proof: what is compared, on which texts, and what passes."""

import json
import math
from pathlib import Path

import pytest

from support.text_model import write_text_model
from support.tiny import make_byte_tokenizer
from tunery.datasets.rendering import ChatRenderer
from tunery.services.publishing import Proof, Tolerance, compare, proof_texts
from tunery.storage.blobs import LocalBlobStore

NAN, INF = math.nan, math.inf
TOLERANCE = Tolerance(mean=0.1, maximum=1.0, sequences=16)


def test_the_proof_is_mean_and_maximum_over_all_tokens() -> None:
    served = [[-1.0, -2.0, -4.0], [-0.5]]
    expected = [[-1.5, -2.0, -3.75], [-1.75]]
    # Differences: 0.5, 0, 0.25 and 1.25. A mean of the sequences' means would be 0.75.
    assert compare(served, expected) == Proof(mean=0.5, maximum=1.25, tokens=4)
    assert compare(expected, served) == compare(served, expected)


def test_what_texts_begin_with_together_is_counted_once() -> None:
    texts = [[7, 8, 9, 1], [7, 8, 9, 2, 3], [7, 8], [6, 8, 9], [7, 8, 9, 2, 4]]
    expected = [[0.0] * (len(text) - 1) for text in texts]
    # Counted: 8, 9, 1; then 2, 3; nothing; 8 and 9 after a 6; then the last 4.
    served = [[1.0, 2.0, 3.0], [50.0, 50.0, 4.0, 5.0], [50.0], [6.0, 7.0], [50.0, 50.0, 50.0, 8.0]]
    assert compare(served, expected, texts) == Proof(mean=36 / 8, maximum=8.0, tokens=8)


def test_a_number_that_is_not_finite_counts_where_it_is_repeated_too() -> None:
    proof = compare([[0.0], [NAN]], [[0.0], [0.0]], [[7, 8], [7, 8]])
    assert not proof.within(Tolerance(mean=INF, maximum=INF, sequences=16))


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
@pytest.mark.parametrize("both", [True, False])
def test_a_number_that_is_not_finite_is_never_within(broken: float, both: bool) -> None:
    served = [[-1.0] * 1000, [-1.0, broken]]
    proof = compare(served, served if both else [[-1.0] * 1000, [-1.0, -1.0]])
    assert proof.tokens == 1002
    assert not proof.within(Tolerance(mean=INF, maximum=INF, sequences=16))


@pytest.mark.parametrize(
    ("served", "expected"),
    [([[-1.0]], [[-1.0], [-1.0]]), ([[-1.0]], [[-1.0, -1.0]]), ([[-1.0], []], [[-1.0], [-1.0]])],
)
def test_scores_of_other_shapes_are_no_proof(
    served: list[list[float]], expected: list[list[float]]
) -> None:
    with pytest.raises(ValueError, match="zip"):
        compare(served, expected)


@pytest.mark.parametrize(
    ("mean", "maximum", "within"),
    [
        (0.0, 0.0, True),
        (0.1, 1.0, True),
        (math.nextafter(0.1, 1), 1.0, False),
        (0.1, math.nextafter(1, 2), False),
        (NAN, 0.0, False),
        (0.0, NAN, False),
        (NAN, NAN, False),
        (0.0, INF, False),
    ],
)
def test_both_mean_and_maximum_must_be_within(mean: float, maximum: float, within: bool) -> None:
    assert Proof(mean, maximum, 10).within(TOLERANCE) is within


@pytest.fixture
def renderer(tmp_path: Path) -> ChatRenderer:
    return ChatRenderer.load(write_text_model(tmp_path / "model", make_byte_tokenizer()))


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "data")


def line(answer: str) -> str:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages})


def framed(answer: str) -> str:
    return f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (3, 3), (16, 4)])
def test_the_texts_are_the_first_lines_of_the_validation_file(
    blobs: LocalBlobStore, renderer: ChatRenderer, count: int, expected: int
) -> None:
    answers = ["one", "two", "three", "four"]
    data = "\ufeff" + "\r\n\r\n".join(line(answer) for answer in answers)
    blobs.put("p/held-out", data.encode())
    encode = make_byte_tokenizer().encode
    assert proof_texts(blobs, renderer, "p/held-out", count) == tuple(
        tuple(encode(framed(answer), add_special_tokens=False).ids) for answer in answers[:expected]
    )


def test_of_a_preference_the_text_is_that_with_the_preferred_answer(
    blobs: LocalBlobStore, renderer: ChatRenderer
) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "Hi"}]},
        "non_preferred_output": [{"role": "assistant", "content": "What?"}],
        "preferred_output": [{"role": "assistant", "content": "one"}],
    }
    blobs.put("p/held-out", json.dumps(pair).encode())
    encode = make_byte_tokenizer().encode
    wanted = tuple(encode(framed("one"), add_special_tokens=False).ids)
    assert proof_texts(blobs, renderer, "p/held-out", 16) == (wanted,)


def test_a_long_text_is_cut_at_512_tokens(blobs: LocalBlobStore, renderer: ChatRenderer) -> None:
    blobs.put("p/held-out", line("x" * 5000).encode())
    (text,) = proof_texts(blobs, renderer, "p/held-out", 16)
    whole = make_byte_tokenizer().encode(framed("x" * 5000), add_special_tokens=False).ids
    assert list(text) == whole[:512]


def test_without_a_validation_file_neutral_questions_are_asked(
    blobs: LocalBlobStore, renderer: ChatRenderer
) -> None:
    texts = proof_texts(blobs, renderer, None, 16)
    assert len(texts) == len(set(texts)) == 8
    for text in texts:
        asked = renderer.tokenizer.decode(list(text))
        assert asked.startswith("user\n")
        assert asked.endswith("\nassistant\n")
    assert proof_texts(blobs, renderer, None, 3) == texts[:3]

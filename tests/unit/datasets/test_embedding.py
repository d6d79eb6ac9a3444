"""Texts to the ids that an embedding model reads."""

import pytest

from support.embeddings import CLS, LONGEST, SEP, UNKNOWN, WORDS, make_word_tokenizer
from tunery.datasets.embedding import EmbeddingTokenizer
from tunery.domain.errors import InvalidRequest


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTokenizer:
    folder = tmp_path_factory.mktemp("words")
    make_word_tokenizer().save(str(folder / "tokenizer.json"))
    return EmbeddingTokenizer(folder, LONGEST)


def ids(*words: str) -> list[int]:
    return [CLS, *map(WORDS.index, words), SEP]


def test_a_text_is_framed_and_neither_cut_nor_padded(tokenizer: EmbeddingTokenizer) -> None:
    # The file asks for exactly 8 tokens; here there are 10, 5 and 3.
    long = "the the sunny, sunny suns"
    assert tokenizer.encode([long, "Suns, the", " \n"]) == [
        ids("the", "the", "sun", "##ny", ",", "sun", "##ny", "sun", "##s"),
        ids("sun", "##s", ",", "the"),
        ids(),
    ]
    assert tokenizer.encode(["snow"]) == [[CLS, UNKNOWN, SEP]]


def test_a_special_tokens_spelling_is_just_characters(tokenizer: EmbeddingTokenizer) -> None:
    assert tokenizer.encode(["[SEP] [CLS]"]) == [ids("[", "sep", "]", "[", "cls", "]")]


def test_ids_are_framed_as_texts_are_and_may_stand_beside_them(
    tokenizer: EmbeddingTokenizer,
) -> None:
    assert tokenizer.encode([[5, 7], "sunny", [0], [16]]) == [
        [CLS, 5, 7, SEP],
        [CLS, 5, 7, SEP],
        [CLS, 0, SEP],
        [CLS, 16, SEP],
    ]


def test_many_texts_keep_their_order(tokenizer: EmbeddingTokenizer) -> None:
    texts = [" ".join("abc"[n % 3]) * (n % 5 + 1) for n in range(200)]
    assert tokenizer.encode(texts) == [tokenizer.encode([text])[0] for text in texts]
    assert tokenizer.encode([]) == []


@pytest.mark.parametrize(
    ("one", "found"),
    [
        ("rain " * 23, "25 tokens"),
        ([8] * 23, "25 tokens"),
        ([8] * 10_000, "10002 tokens"),
        ("x" * (24 * 128 + 1), "3073 characters"),
    ],
)
def test_what_is_too_long_is_refused_with_its_place_and_the_limit(
    tokenizer: EmbeddingTokenizer, one: str | list[int], found: str
) -> None:
    fits: list[str | list[int]] = ["rain " * 22, [8] * 22]
    assert [len(one) for one in tokenizer.encode(fits)] == [LONGEST, LONGEST]
    with pytest.raises(InvalidRequest) as refused:
        tokenizer.encode([*fits, one])
    error = refused.value
    assert (error.param, error.code) == ("input", "context_length_exceeded")
    assert f"maximum context length is {LONGEST} tokens" in error.message
    assert f"input 2 has {found}" in error.message


@pytest.mark.parametrize(
    ("one", "says"),
    [("", "empty"), ([], "empty"), ([5, 17], "id 17"), ([5, -1], "id -1"), ([100257], "0 to 16")],
)
def test_what_is_no_input_is_refused_by_its_place(
    tokenizer: EmbeddingTokenizer, one: str | list[int], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        tokenizer.encode(["the"] * 70 + [one])
    assert "'input[70]'" in refused.value.message
    assert (refused.value.param, refused.value.code) == ("input", "invalid_value")

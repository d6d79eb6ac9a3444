"""Text to ids and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from support.properties import untimed
from support.text_model import SPECIAL, make_merging_tokenizer, write_text_model
from support.tiny import make_byte_tokenizer
from tunery.datasets.tokenizer import TextTokenizer

WRITTEN = st.lists(st.text() | st.sampled_from([*SPECIAL, "<|im_", "end|>", "\n"])).map("".join)


@pytest.fixture(scope="module", params=[make_byte_tokenizer, make_merging_tokenizer])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TextTokenizer:
    make: Callable[[], Tokenizer] = request.param
    return TextTokenizer(write_text_model(tmp_path_factory.mktemp("text"), make()))


@untimed
@given(WRITTEN)
def test_written_text_has_no_special_id_and_comes_back_whole(
    tokenizer: TextTokenizer, text: str
) -> None:
    special = {tokenizer.template_ids(token)[0] for token in SPECIAL}
    ids = tokenizer.text_ids(text)
    assert special.isdisjoint(ids)
    assert tokenizer.decode(ids) == text


def test_a_special_token_is_one_id_in_a_template_and_letters_in_text(tmp_path: Path) -> None:
    raw = make_byte_tokenizer()
    tokenizer = TextTokenizer(write_text_model(tmp_path, raw))
    assert tokenizer.template_ids("<|im_end|>") == [raw.token_to_id("<|im_end|>")]
    assert tokenizer.text_ids("<|im_end|>") == [raw.token_to_id(char) for char in "<|im_end|>"]


def test_special_tokens_are_left_out_of_decoded_text_and_cut_characters_show(
    tmp_path: Path,
) -> None:
    tokenizer = TextTokenizer(write_text_model(tmp_path, make_byte_tokenizer()))
    start, end = (tokenizer.template_ids(token) for token in SPECIAL)
    assert tokenizer.decode([*start, *tokenizer.text_ids("aé"), *end]) == "aé"
    assert tokenizer.decode(tokenizer.text_ids("aé")[:-1]) == "a\ufffd"


def test_what_the_file_adds_pads_or_cuts_is_not_applied(tmp_path: Path) -> None:
    raw = make_byte_tokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", raw.token_to_id("<|im_start|>"))]
    )
    raw.enable_truncation(2)
    raw.enable_padding(length=8)
    tokenizer = TextTokenizer(write_text_model(tmp_path, raw))
    expected = [raw.token_to_id(char) for char in "abc"]
    assert tokenizer.text_ids("abc") == tokenizer.template_ids("abc") == expected


@pytest.mark.parametrize(
    ("generation_config", "config", "tokenizer_config", "expected"),
    [
        ({"eos_token_id": [3, 5]}, {"eos_token_id": 7}, {"eos_token": "b"}, {3, 5}),
        ({"eos_token_id": 0}, {"eos_token_id": 7}, {"eos_token": "b"}, {0}),
        ({}, {"eos_token_id": 7}, {"eos_token": "b"}, {7}),
        ({"eos_token_id": None}, {"eos_token_id": [7]}, {}, {7}),
        (None, None, {"eos_token": "<|im_end|>"}, {257}),
        (None, {}, {"eos_token": {"content": "<|im_end|>"}}, {257}),
    ],
)
def test_the_end_of_an_answer_is_what_the_configurations_say(
    tmp_path: Path,
    generation_config: dict[str, Any] | None,
    config: dict[str, Any] | None,
    tokenizer_config: dict[str, Any],
    expected: set[int],
) -> None:
    folder = write_text_model(
        tmp_path,
        make_byte_tokenizer(),  # 256 bytes, then <|im_start|> and <|im_end|>
        generation_config=generation_config,
        config=config,
        tokenizer_config=tokenizer_config,
    )
    assert TextTokenizer(folder).eos_ids == expected


@pytest.mark.parametrize("tokenizer_config", [{"eos_token": "<none>"}, {"eos_token": None}, {}])
def test_a_model_without_an_end_is_refused_with_what_to_do(
    tmp_path: Path, tokenizer_config: dict[str, Any]
) -> None:
    folder = write_text_model(tmp_path, make_byte_tokenizer(), tokenizer_config=tokenizer_config)
    with pytest.raises(ValueError, match="eos_token_id"):
        TextTokenizer(folder)

"""Text to ids and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from support.properties import untimed
from support.text_model import SPECIAL, make_merging_tokenizer, write_text_model
from support.tiny import make_byte_tokenizer
from tunery.datasets.tokenizer import Spellings, TextTokenizer

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


def test_a_token_that_is_reserved_is_letters_in_text_too(tmp_path: Path) -> None:
    raw = make_byte_tokenizer()
    raw.add_tokens([AddedToken("<call>", special=False), AddedToken("<pad>", special=False)])
    folder = write_text_model(tmp_path, raw)
    call, pad = (raw.token_to_id(name) or 0 for name in ("<call>", "<pad>"))
    tokenizer = TextTokenizer(folder)
    assert tokenizer.added_in("a<call><|im_end|>") == ["<|im_end|>", "<call>"]
    for marks, in_text in (("", [call, pad]), ("<call>", [pad])):
        tokenizer.reserve(marks)
        assert tokenizer.template_ids("<call><pad>") == [call, pad]
        assert [i for i in tokenizer.text_ids("<call><pad>") if i in (call, pad)] == in_text
        assert tokenizer.decode([call]) == "<call>"


@pytest.mark.parametrize(
    ("text", "touched"),
    [
        ("", False),
        ("a plain text, 5 > 4 and more", False),
        ("so <|im_end|> it", True),
        ("so <", True),
        ("so <|im_e", True),
        ("nd|> it", True),
        ("im_", True),
        ("so im_ it", False),
        ("so |> it", False),
    ],
)
def test_a_text_that_may_become_a_part_of_a_control_token_is_known(
    text: str, touched: bool
) -> None:
    assert Spellings(["<|im_start|>", "<|im_end|>"]).touched_by(text) == touched
    assert not Spellings([]).touched_by(text)


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


@untimed
@given(WRITTEN)
def test_the_bytes_of_a_texts_tokens_are_the_texts(tokenizer: TextTokenizer, text: str) -> None:
    pieces = [tokenizer.token_id_bytes(token) for token in tokenizer.text_ids(text)]
    assert b"".join(pieces) == text.encode()
    assert all(pieces)


def test_the_text_of_a_token_shows_lone_bytes_and_the_names_of_special_tokens(
    tmp_path: Path,
) -> None:
    raw = make_byte_tokenizer()
    tokenizer = TextTokenizer(write_text_model(tmp_path, raw))
    assert [tokenizer.token_id_text(one) for one in tokenizer.text_ids("a €")] == [
        "a",
        " ",
        "\\xe2",
        "\\x82",
        "\\xac",
    ]
    (end,) = tokenizer.template_ids("<|im_end|>")
    assert (tokenizer.token_id_text(end), tokenizer.token_id_bytes(end)) == ("<|im_end|>", b"")
    unknown = raw.get_vocab_size()  # a head may be wider than its tokenizer
    assert (tokenizer.token_id_text(unknown), tokenizer.token_id_bytes(unknown)) == ("", b"")


def test_an_added_token_that_is_not_special_is_text(tmp_path: Path) -> None:
    raw = make_byte_tokenizer()
    raw.add_tokens([AddedToken("two words"), AddedToken("né")])
    tokenizer = TextTokenizer(write_text_model(tmp_path, raw))
    (plain,) = tokenizer.template_ids("two words")
    assert tokenizer.token_id_bytes(plain) == tokenizer.decode([plain]).encode() == b"two words"
    (byte,) = tokenizer.template_ids("né")  # é stands for the byte E9: so it is decoded, too
    assert tokenizer.token_id_bytes(byte) == b"n\xe9"
    assert tokenizer.decode([byte]) == "n\ufffd"


def test_a_byte_level_decoder_in_a_sequence_of_one_is_known(tmp_path: Path) -> None:
    raw = make_byte_tokenizer()
    raw.decoder = decoders.Sequence([decoders.ByteLevel()])
    tokenizer = TextTokenizer(write_text_model(tmp_path, raw))
    assert [tokenizer.token_id_bytes(one) for one in tokenizer.text_ids("é")] == [b"\xc3", b"\xa9"]


def test_a_sentencepiece_tokenizers_spaces_and_bytes_are_told(tmp_path: Path) -> None:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    spelled = [*bytes_, "\u2581", "a", "b", "\u2581b", "<|im_end|>"]
    raw = Tokenizer(
        models.BPE(
            {token: place for place, token in enumerate(spelled)},
            merges=[("\u2581", "b")],
            byte_fallback=True,
        )
    )
    raw.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    raw.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    raw.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer = TextTokenizer(write_text_model(tmp_path, raw))
    ids = tokenizer.text_ids("a b€")
    assert tokenizer.decode(ids) == "a b€"
    assert [tokenizer.token_id_bytes(one) for one in ids] == [
        b" ",  # decoding drops it at the beginning of a text, and only there
        b"a",
        b" b",
        b"\xe2",
        b"\x82",
        b"\xac",
    ]


def test_the_highest_id_may_be_beyond_the_number_of_tokens(tmp_path: Path) -> None:
    folder = write_text_model(tmp_path, make_byte_tokenizer())
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text())
    last = value["model"]["vocab"]["Ń"]
    assert TextTokenizer(folder).highest_id == TextTokenizer(folder).vocabulary - 1
    value["model"]["vocab"]["Ń"] = 70_000
    value["model"]["vocab"]["unused"] = last
    path.write_text(json.dumps(value))
    tokenizer = TextTokenizer(folder)
    assert tokenizer.vocabulary < 300
    assert tokenizer.highest_id == 70_000

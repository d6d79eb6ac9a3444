"""Answers that follow a grammar: what may come next, token by token, and where they end."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from support.networks import (
    VOCABULARY,
    Answer,
    ask,
    drain,
    logits_of,
    make_scheduler,
    plain_model,
    tokens,
)
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import InvalidRequest, Overloaded
from tunery.engine.grammar import GrammarCompiler, GrammarMatcher
from tunery.engine.sampling import Sampling

END = 257  # <|im_end|> of the tiny tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return TextTokenizer(tiny_model)


@pytest.fixture(scope="module")
def compiler(tokenizer: TextTokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, VOCABULARY)


def _ids(tokenizer: TextTokenizer, text: str) -> set[int]:
    return set(tokenizer.text_ids(text))


def _allowed(matcher: GrammarMatcher) -> set[int]:
    return set((~matcher.forbidden()).nonzero()[:, 0].tolist())


def _take(matcher: GrammarMatcher, tokenizer: TextTokenizer, text: str) -> None:
    for token in tokenizer.text_ids(text):
        assert not matcher.forbidden()[token]
        matcher.take(token)


def test_a_mask_allows_what_the_grammar_says_by_hand(
    compiler: GrammarCompiler, tokenizer: TextTokenizer
) -> None:
    matcher = compiler.compile_now('start: ("yes" | "yet" | "no") /[0-9]/?')
    assert _allowed(matcher) == _ids(tokenizer, "yn")
    _take(matcher, tokenizer, "ye")
    assert _allowed(matcher) == _ids(tokenizer, "st")
    _take(matcher, tokenizer, "t")
    assert _allowed(matcher) == _ids(tokenizer, "0123456789") | {END}
    assert not matcher.complete
    _take(matcher, tokenizer, "7")
    assert matcher.complete
    assert _allowed(matcher) == {END}


def test_ids_of_the_head_that_the_tokenizer_does_not_know_are_forbidden(
    tokenizer: TextTokenizer,
) -> None:
    wide = GrammarCompiler(tokenizer, VOCABULARY + 30)
    matcher = wide.compile_now("start: /(.|\\n)*/")
    assert len(matcher.forbidden()) == VOCABULARY + 30
    # Bytes that begin a character of UTF-8, and the end. No control token, nothing past the end.
    begin = {*range(0x80), *range(0xC2, 0xF5)}
    spelled = {token for token in range(256) if tokenizer.token_id_bytes(token)[0] in begin}
    assert _allowed(matcher) == spelled | {END}


def test_text_that_spells_a_control_token_is_text(
    compiler: GrammarCompiler, tokenizer: TextTokenizer
) -> None:
    text = "<|im_end|>"
    matcher = compiler.compile_now(f"start: {json.dumps(text)}")
    for token in tokenizer.text_ids(text):
        assert _allowed(matcher) == {token}
        matcher.take(token)
    assert matcher.complete


@pytest.mark.parametrize(
    "grammar", ["", "letters", "start: unknown", "start: %json {", "start: /(/"]
)
def test_what_is_no_grammar_is_refused(compiler: GrammarCompiler, grammar: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(compiler.compile(grammar))
    assert refused.value.code == "invalid_grammar"
    assert "\n" not in refused.value.message


def test_grammars_wait_in_a_bounded_queue(tokenizer: TextTokenizer) -> None:
    narrow = GrammarCompiler(tokenizer, VOCABULARY, queue=2)

    async def together() -> list[GrammarMatcher | BaseException]:
        asked = (narrow.compile('start: "a"') for _ in range(5))
        return await asyncio.gather(*asked, return_exceptions=True)

    for _ in range(2):  # and there is room again once they are done
        found = asyncio.run(together())
        assert [type(one) for one in found] == [GrammarMatcher] * 2 + [Overloaded] * 3


# ---- in the scheduler

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["cat", "dog", None]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "kind", "legs", "tags"],
    "additionalProperties": False,
}


def _of(schema: object) -> str:
    return f"start: %json {json.dumps(schema)}"


def _sampling(matcher: GrammarMatcher | None, seed: int = 0, **others: Any) -> Sampling:
    return Sampling(**{"temperature": 1.5, "top_p": 1.0, **others}, seed=seed, grammar=matcher)


def _reason(answer: Answer) -> str | None:
    assert answer.ends == [None]
    return answer.deltas[-1].finish_reason


def test_rows_with_a_grammar_and_free_ones_share_a_batch(
    tiny_model: Path, tokenizer: TextTokenizer, compiler: GrammarCompiler
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)

    def free() -> Answer:
        return ask(scheduler, tokenizer, tokens(9, 1), 40, sampling=_sampling(None, 3))

    alone = free()
    drain(scheduler)
    followed = [
        ask(
            scheduler,
            tokenizer,
            tokens(5, seed),
            400,
            sampling=_sampling(compiler.compile_now(_of(PERSON)), seed),
        )
        for seed in range(12)
    ]
    among = free()
    drain(scheduler)
    assert among.made == alone.made
    validator = Draft202012Validator(PERSON)
    for answer in followed:
        assert _reason(answer) == "stop"
        validator.validate(json.loads(answer.text))
        assert answer.text == tokenizer.decode(answer.made)
    assert len({answer.text for answer in followed}) == 12


def test_an_answer_ends_with_its_grammar_and_is_cut_off_by_its_length(
    tiny_model: Path, tokenizer: TextTokenizer, compiler: GrammarCompiler
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)

    def asked(count: int, **others: Any) -> Answer:
        matcher = compiler.compile_now('start: "abcdef" /[0-9]/?')
        settings = _sampling(matcher, temperature=0)
        return ask(scheduler, tokenizer, tokens(5, 0), count, sampling=settings, **others)

    cut, stopped = asked(4), asked(50, stop=("de",))
    barely = ask(
        scheduler,
        tokenizer,
        tokens(5, 0),
        3,
        sampling=_sampling(compiler.compile_now('start: "abc"')),
    )
    drain(scheduler)
    assert (cut.text, _reason(cut)) == ("abcd", "length")
    assert (stopped.text, _reason(stopped)) == ("abc", "stop")
    assert (barely.text, _reason(barely), len(barely.made)) == ("abc", "stop", 3)


def test_bias_and_penalties_choose_among_what_is_allowed_only(
    tiny_model: Path, tokenizer: TextTokenizer, compiler: GrammarCompiler
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    (z,), (b,) = tokenizer.text_ids("z"), tokenizer.text_ids("b")

    def asked(**others: Any) -> Answer:
        settings = _sampling(compiler.compile_now("start: /[ab]{6}/"), temperature=0, **others)
        return ask(scheduler, tokenizer, tokens(5, 0), 20, sampling=settings)

    liked = asked(logit_bias=((z, 100.0), (b, 100.0), (END, 100.0)))
    hated = asked(logit_bias=((b, -100.0),))
    both = asked(logit_bias=((b, 100.0),), frequency_penalty=2.0)
    drain(scheduler)
    assert (liked.text, hated.text) == ("bbbbbb", "aaaaaa")
    assert both.text == "bbbbbb"  # 2 a time stays below the bias


def test_log_probabilities_are_among_what_is_allowed(
    tiny_model: Path, tokenizer: TextTokenizer, compiler: GrammarCompiler
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    settings = _sampling(compiler.compile_now('start: ("a" | "b") "c"'), top_logprobs=5)
    answer = ask(scheduler, tokenizer, tokens(5, 0), 20, sampling=settings)
    drain(scheduler)
    first, second = (one for delta in answer.deltas for one in delta.logprobs)
    # Of all five that were asked for only two can be: their shares of one are by their logits.
    logits = logits_of(plain_model(tiny_model), tokens(5, 0))[-1]
    a, b = (float(logits[tokenizer.text_ids(letter)[0]]) for letter in "ab")
    whole = math.log(math.exp(a) + math.exp(b))
    told = {token: logprob for token, _, logprob in first.top}
    assert told == pytest.approx({"a": a - whole, "b": b - whole}, abs=1e-4)
    assert first.logprob == told[first.token]
    assert second.top == (("c", b"c", 0.0),)


def test_a_grammar_that_becomes_too_complex_ends_its_own_row_only(
    tiny_model: Path, tokenizer: TextTokenizer, compiler: GrammarCompiler
) -> None:
    scheduler = make_scheduler(tiny_model, tokenizer)
    # Past its first letters any of 3,000 rules may begin: more than is kept in mind.
    rules = [f"rule_{number}" for number in range(3000)]
    many = "\n".join(f'{rule}: TEXT "{rule}"' for rule in rules)
    grammar = f"start: /[a-c]{{3}}/ TEXT ({' | '.join(rules)})\nTEXT: /x/\n{many}"
    settings = _sampling(compiler.compile_now(grammar))
    broken = ask(scheduler, tokenizer, tokens(5, 0), 400, sampling=settings)
    other = ask(scheduler, tokenizer, tokens(5, 0), 450, sampling=_sampling(None))
    drain(scheduler)
    (error,) = broken.ends
    assert isinstance(error, InvalidRequest)
    assert error.code == "invalid_grammar"
    assert broken.text
    assert set(broken.text) <= set("abc")
    assert other.ends == [None]
    again = ask(scheduler, tokenizer, tokens(5, 0), 5, sampling=_sampling(None))
    drain(scheduler)
    assert _reason(again) in ("length", "stop")

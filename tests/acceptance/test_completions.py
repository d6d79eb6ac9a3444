"""Legacy completions through the official SDK: text in, text out, nothing passed over."""

import math
from typing import Any

import openai
import pytest
from openai import OpenAI

from support.server import BASE, Tuned

PROMPT = "abc"  # a token a character for the tiny model


def test_a_text_is_gone_on_from_and_the_default_is_sixteen_tokens(client: OpenAI) -> None:
    made = client.completions.create(model=BASE, prompt=PROMPT, seed=1)
    assert made.object == "text_completion"
    assert made.model == BASE
    assert [choice.index for choice in made.choices] == [0]
    assert made.usage is not None
    assert made.usage.prompt_tokens == 3
    assert 1 <= made.usage.completion_tokens <= 16
    assert made.choices[0].finish_reason == (
        "length" if made.usage.completion_tokens == 16 else "stop"
    )


def test_prompts_and_choices_are_numbered_prompt_by_prompt(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": BASE, "max_tokens": 4, "seed": 5, "n": 2}
    both = client.completions.create(prompt=["ab", "abcd"], **asked)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.usage is not None
    assert both.usage.prompt_tokens == 2 + 4  # each prompt once
    second = client.completions.create(prompt="abcd", **asked)
    assert [c.text for c in both.choices[2:]] == [c.text for c in second.choices]


def test_token_ids_are_taken_as_they_are(client: OpenAI, tuned: Tuned) -> None:
    echoed = client.completions.create(
        model=tuned.model, prompt=PROMPT, echo=True, logprobs=0, max_tokens=0
    )
    assert echoed.choices[0].text == PROMPT
    assert echoed.choices[0].finish_reason == "length"
    logprobs = echoed.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["a", "b", "c"]
    assert logprobs.text_offset == [0, 1, 2]
    assert logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs is not None
    assert [list(top) for top in logprobs.top_logprobs[1:]] == [["b"], ["c"]]
    same = client.completions.create(
        model=tuned.model, prompt=[[98, 99]], echo=True, logprobs=2, max_tokens=1, temperature=0
    )
    assert same.usage is not None
    assert same.usage.prompt_tokens == 2


def test_log_probabilities_of_prompt_and_answer_agree_with_a_scored_text(client: OpenAI) -> None:
    made = client.completions.create(
        model=BASE, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3, echo=True
    )
    whole = made.choices[0]
    assert whole.logprobs is not None
    assert whole.logprobs.tokens is not None
    assert whole.logprobs.token_logprobs is not None
    assert whole.logprobs.top_logprobs is not None
    assert whole.text.startswith(PROMPT)
    assert len(whole.logprobs.tokens) == len(whole.logprobs.token_logprobs) <= 3 + 5
    answer = whole.logprobs.token_logprobs[3:]
    tops = whole.logprobs.top_logprobs[3:]
    for token, logprob, top in zip(whole.logprobs.tokens[3:], answer, tops, strict=True):
        assert logprob == max(top.values())  # greedy: the likeliest token is taken
        assert top[token] == logprob
        assert sum(math.exp(value) for value in top.values()) <= 1 + 1e-6
    bare = client.completions.create(
        model=BASE, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3
    )
    assert bare.choices[0].logprobs is not None
    assert bare.choices[0].logprobs.token_logprobs == pytest.approx(answer, abs=1e-4)


def test_best_of_returns_the_likeliest_and_charges_all(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": BASE,
        "prompt": PROMPT,
        "max_tokens": 3,
        "seed": 3,
        "logprobs": 0,
    }
    every = client.completions.create(n=6, **asked)
    best = client.completions.create(n=1, best_of=6, **asked)

    def mean(choice: openai.types.CompletionChoice) -> float:
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        values = choice.logprobs.token_logprobs
        return sum(values) / len(values) if values else 0.0

    assert best.choices[0].text == max(every.choices, key=mean).text
    assert best.usage is not None
    assert every.usage is not None
    assert best.usage.completion_tokens == every.usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": BASE,
        "prompt": ["ab", "cd"],
        "max_tokens": 6,
        "seed": 9,
        "echo": True,
    }
    whole = client.completions.create(logprobs=1, **asked)
    pieces = list(
        client.completions.create(
            stream=True, stream_options={"include_usage": True}, logprobs=1, **asked
        )
    )
    assert pieces[-1].choices == []
    assert pieces[-1].usage == whole.usage
    for choice in whole.choices:
        mine = [c for piece in pieces for c in piece.choices if c.index == choice.index]
        assert "".join(c.text for c in mine) == choice.text
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        assert choice.logprobs is not None
        told = [c.logprobs for c in mine if c.logprobs is not None]
        assert [t for one in told for t in one.tokens or ()] == choice.logprobs.tokens
        assert [o for one in told for o in one.text_offset or ()] == choice.logprobs.text_offset


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [10**6]}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": ["x"] * 9, "n": 128}, "n"),
        ({"prompt": ["x"] * 33, "echo": True, "logprobs": 0}, "n"),
        ({"prompt": "x" * 4000}, "prompt"),
        ({"n": 129}, "n"),
        ({"logit_bias": {"100000": 1}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/completions", body={"model": BASE, "prompt": "x", **fields}, cast_to=object)
    assert refused.value.param is not None
    assert refused.value.param.partition(".")[0] == param


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="nope", prompt="x")
    assert refused.value.code == "model_not_found"

"""What a chat request may ask of its answer, through the official SDK."""

from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from support.server import BASE, Tuned
from tunery.datasets.tokenizer import TextTokenizer

HI: Any = [{"role": "user", "content": "ask 001"}]


def chat(client: OpenAI, **options: Any) -> ChatCompletion:
    made: ChatCompletion = client.chat.completions.create(
        **{"model": BASE, "messages": HI, "max_tokens": 6, "seed": 7, **options}
    )
    return made


def test_n_choices_are_made_from_one_prompt_and_charged_together(client: OpenAI) -> None:
    one, many = chat(client), chat(client, n=5)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3, 4]
    assert many.choices[0].message.content == one.choices[0].message.content
    assert len({choice.message.content for choice in many.choices}) > 1  # seeds of their own
    assert one.usage is not None
    assert many.usage is not None
    assert many.usage.prompt_tokens == one.usage.prompt_tokens
    assert many.usage.completion_tokens > one.usage.completion_tokens


def test_a_stream_of_many_choices_says_what_the_whole_answer_says(client: OpenAI) -> None:
    whole = chat(client, n=3, logprobs=True, top_logprobs=2)
    texts, logprobs = ["", "", ""], [0, 0, 0]
    ends: list[str | None] = [None] * 3
    stream = client.chat.completions.create(
        model=BASE,
        messages=HI,
        max_tokens=6,
        seed=7,
        n=3,
        logprobs=True,
        top_logprobs=2,
        stream=True,
    )
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
            if choice.logprobs is not None:
                logprobs[choice.index] += len(choice.logprobs.content or ())
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    told = [choice.logprobs for choice in whole.choices]
    assert logprobs == [len(one.content or ()) if one else 0 for one in told]


def test_log_probabilities_tell_of_each_token_and_its_rivals(client: OpenAI) -> None:
    choice = chat(client, temperature=0, logprobs=True, top_logprobs=3).choices[0]
    assert choice.logprobs is not None
    told = choice.logprobs.content
    assert told
    text = b"".join(bytes(one.bytes or ()) for one in told)
    assert text.decode("utf-8", "replace") == choice.message.content
    for one in told:
        assert len(one.top_logprobs) == 3
        assert one.top_logprobs[0].logprob == one.logprob  # greedy takes the likeliest
    assert chat(client, logprobs=False).choices[0].logprobs is None


def test_bias_decides_which_token_is_made(client: OpenAI, tiny_model: Path) -> None:
    x, y = TextTokenizer(tiny_model).text_ids("xy")
    biased = chat(client, logit_bias={str(x): 100}, max_tokens=4)
    assert biased.choices[0].message.content == "xxxx"
    # Each "x" made costs it 2, and the first 2 more: "y" with 5 less gets its turn.
    mixed = chat(
        client,
        logit_bias={str(x): 100, str(y): 95},
        presence_penalty=2,
        frequency_penalty=2,
        max_tokens=4,
        temperature=0,
    )
    text = mixed.choices[0].message.content
    assert text is not None
    assert set(text) == {"x", "y"}


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_come_under_either_name(client: OpenAI, role: str) -> None:
    said: Any = [{"role": role, "content": [{"type": "text", "text": "Be brief."}]}, *HI]
    assert chat(client, messages=said).choices[0].message.content is not None


def test_a_tuned_model_takes_the_same_options(client: OpenAI, tuned: Tuned) -> None:
    made = chat(client, model=tuned.model, n=2, temperature=0, logprobs=True, max_tokens=8)
    assert [choice.message.content for choice in made.choices] == ["yes", "yes"]

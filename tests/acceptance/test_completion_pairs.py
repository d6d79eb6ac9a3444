"""A model tuned on prompts and completions goes on from a prompt as it was taught."""

import json

import pytest
from openai import OpenAI

from support.server import BASE, Server, ask, finished, method, poll, tuned_model, upload

TAUGHT = {"aaa": " no", "zzz": " yes"}  # a token a character for the tiny model


def pairs(times: int) -> bytes:
    lines = [{"prompt": p, "completion": c} for p, c in TAUGHT.items()] * times
    return "\n".join(map(json.dumps, lines)).encode()


@pytest.fixture(scope="module")
def model(client: OpenAI) -> str:
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=upload(client, pairs(8)).id,
        validation_file=upload(client, pairs(1), "valid.jsonl").id,
        seed=3,
        method=method(n_epochs=8, batch_size=4, learning_rate_multiplier=2.0),
    )
    return tuned_model(client, job.id)


def test_each_prompt_is_gone_on_from_with_its_completion_and_the_end(
    client: OpenAI, model: str
) -> None:
    for prompt, completion in TAUGHT.items():
        made = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=16)
        assert (made.choices[0].text, made.choices[0].finish_reason) == (completion, "stop")
        assert made.usage is not None
        assert made.usage.prompt_tokens == len(prompt)
        # The end is made as a token too.
        assert made.usage.completion_tokens in (len(completion), len(completion) + 1)


def test_the_model_answers_chats_too_with_the_bases_template(client: OpenAI, model: str) -> None:
    assert isinstance(ask(client, model, "aaa"), str)


def test_the_tokens_that_are_billed_are_those_of_the_texts(client: OpenAI, model: str) -> None:
    job = next(job for job in client.fine_tuning.jobs.list() if job.fine_tuned_model == model)
    tokens = sum(len(prompt) + len(completion) + 1 for prompt, completion in TAUGHT.items())
    assert job.trained_tokens == 8 * 8 * tokens


def test_nothing_is_left_in_the_token_cache(server: Server, client: OpenAI, model: str) -> None:
    assert client.models.retrieve(model).id == model
    shards = server.data / "tokens"
    assert shards.is_dir()
    poll(lambda: not any(shards.rglob("shard-*")), f"no shard is left in {shards}")


def test_a_file_of_both_kinds_is_refused_in_openais_words(client: OpenAI) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    data = pairs(8) + b"\n" + json.dumps({"messages": turns}).encode()
    job = client.fine_tuning.jobs.create(model=BASE, training_file=upload(client, data).id)
    ended = finished(client, job.id)
    assert (ended.status, ended.error and ended.error.code) == ("failed", "invalid_training_file")
    assert ended.error is not None
    assert ended.error.param == "training_file"
    assert (
        "line 17: Unexpected file format, expected either prompt/completion pairs or chat messages."
        in ended.error.message
    )

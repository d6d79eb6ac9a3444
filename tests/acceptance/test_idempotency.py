"""Idempotency-Key: a creation that is sent again makes nothing new, whatever went wrong."""

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from support.server import BASE, Server, chat_lines, upload

KEY = "Idempotency-Key"


def new_key() -> str:
    return f"key-{random.SystemRandom().getrandbits(64):x}"


@pytest.fixture(scope="module")
def file_id(client: OpenAI) -> str:
    return upload(client, chat_lines(12)).id


def job(client: OpenAI, file_id: str, key: str, **fields: Any) -> str:
    made = client.fine_tuning.jobs.create(
        model=BASE, training_file=file_id, extra_headers={KEY: key}, **fields
    )
    return made.id


def count_jobs(client: OpenAI) -> int:
    return len(list(client.fine_tuning.jobs.list(limit=100)))


def test_twenty_at_once_make_one_job(client: OpenAI, file_id: str) -> None:
    before, key = count_jobs(client), new_key()
    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(lambda _: job(client, file_id, key), range(20)))
    assert len(set(ids)) == 1
    assert count_jobs(client) == before + 1


def test_another_body_under_the_same_key_is_a_conflict_that_clients_do_not_repeat(
    client: OpenAI, file_id: str
) -> None:
    key = new_key()
    first = job(client, file_id, key, suffix="one")
    with pytest.raises(openai.ConflictError) as refused:
        job(client, file_id, key, suffix="two")
    assert refused.value.code == "idempotency_key_reused"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert job(client, file_id, key, suffix="one") == first
    assert job(client, file_id, new_key(), suffix="one") != first


def test_the_order_of_fields_does_not_make_another_body(
    server: Server, client: OpenAI, file_id: str
) -> None:
    headers = {KEY: new_key(), "content-type": "application/json"}
    fields = {"model": BASE, "training_file": file_id, "seed": 3}
    ids = set()
    for names in (("model", "training_file", "seed"), ("seed", "model", "training_file")):
        body = json.dumps({name: fields[name] for name in names}, indent=2)
        made = server.http().post("/v1/fine_tuning/jobs", content=body, headers=headers)
        ids.add(made.json()["id"])
    assert len(ids) == 1


def test_a_refused_creation_leaves_its_key_free(client: OpenAI, file_id: str) -> None:
    key = new_key()
    with pytest.raises(openai.BadRequestError):
        job(client, "file-nope", key)
    assert job(client, file_id, key).startswith("ftjob-")


def test_inference_is_not_remembered(client: OpenAI) -> None:
    key, messages = new_key(), [{"role": "user", "content": "Hi"}]
    asked: dict[str, Any] = {"model": BASE, "max_tokens": 2, "extra_headers": {KEY: key}}
    one = client.chat.completions.create(messages=messages, **asked)  # type: ignore[arg-type]
    two = client.chat.completions.create(messages=messages, **asked)  # type: ignore[arg-type]
    assert one.id != two.id


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_no_use_is_refused(client: OpenAI, file_id: str, key: str) -> None:
    with pytest.raises(openai.BadRequestError, match="Idempotency-Key"):
        job(client, file_id, key)


@pytest.mark.slow
def test_an_api_killed_between_commit_and_answer_makes_no_duplicate(
    models: Path, tmp_path: Path
) -> None:
    with Server(tmp_path / "killed", models) as server:
        client = server.client()
        file = upload(client, chat_lines(12)).id
        chosen = random.Random(7)
        keys = [new_key() for _ in range(8)]
        for key in keys:
            api = server.child("serve")
            killer = threading.Timer(chosen.uniform(0.0, 0.03), api_killer(api))
            killer.start()
            with suppress(openai.APIError, httpx2.HTTPError):
                job(client, file, key)
            killer.join()
            server.wait_until_ready()
            client = server.client()
            again = job(client, file, key)
            assert job(client, file, key) == again
        assert count_jobs(client) == len(keys)


def api_killer(api: Any) -> Callable[[], None]:
    def kill() -> None:
        with suppress(ProcessLookupError):
            api.send(9)
        time.sleep(0.05)

    return kill

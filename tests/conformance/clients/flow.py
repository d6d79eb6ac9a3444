"""The whole line in the SDK's words, for whichever SDK runs it: argument a training file.

Prints what it found as one JSON object. Runs in an environment that has the SDK and nothing of
ours, so that the same lines are tried on every release.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import openai
from openai import OpenAI

BASE = "gpt-3.5-turbo"
QUESTION: Any = [{"role": "user", "content": "ask 001"}]
SECONDS = 180


def main(path: str) -> dict[str, Any]:
    """Upload, tune, follow, answer and fail; return what came of it."""
    client = OpenAI(max_retries=0, timeout=60)
    with open(path, "rb") as training:
        file = client.files.create(file=training, purpose="fine-tune")
    file = client.files.wait_for_processing(file.id, poll_interval=0.2)
    created = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file.id,
        suffix="flow",
        seed=3,
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": 4,
                    "batch_size": 4,
                    "learning_rate_multiplier": 1.5,
                }
            },
        },
    )
    job = finished(client, created.id)
    model = job.fine_tuned_model or ""
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))
    listed = [one.id for one in client.models.list()]
    return {
        "file": [file.object, file.purpose, file.status, file.bytes],
        "created": [created.object, created.status, created.seed],
        "finished": [job.status, job.trained_tokens, len(job.result_files)],
        "events": [len(events), len({event.id for event in events}), events[0].message],
        "listed": model in listed and BASE in listed,
        "owner": client.models.retrieve(model).owned_by,
        "result": client.files.content(job.result_files[0]).read()[:4].decode(),
        **chat(client, model),
        "errors": errors(client, job.id),
        "deleted": client.files.delete(file.id).deleted,
    }


def finished(client: OpenAI, job_id: str) -> Any:
    """Poll a job until it ends."""
    deadline = time.monotonic() + SECONDS
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        if time.monotonic() > deadline:
            raise TimeoutError(f"{job_id} is still {job.status}")
        time.sleep(0.2)


def chat(client: OpenAI, model: str) -> dict[str, Any]:
    """Ask for an answer whole, and in pieces."""
    whole = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=8
    )
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=QUESTION,
            temperature=0,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    usage = chunks[-1].usage
    return {
        "whole": [whole.choices[0].message.content, whole.choices[0].finish_reason],
        "tokens": [whole.usage.total_tokens if whole.usage else 0],
        "streamed": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "streamed_tokens": [usage.total_tokens if usage else 0],
    }


def errors(client: OpenAI, job_id: str) -> dict[str, list[Any]]:
    """Fail in every way, and return each error's class, status, param and code."""
    stranger = client.with_options(api_key="sk-nobody")
    found = {}
    calls: dict[str, Callable[[], Any]] = {
        "key": stranger.models.list,
        "file": lambda: client.files.retrieve("file-x"),
        "job": lambda: client.fine_tuning.jobs.retrieve("ftjob-x"),
        "model": lambda: client.chat.completions.create(model="nobody", messages=QUESTION),
        "base": lambda: client.models.delete(BASE),
        "value": lambda: client.chat.completions.create(
            model=BASE, messages=QUESTION, temperature=5
        ),
        "ended": lambda: client.fine_tuning.jobs.cancel(job_id),
    }
    for name, call in calls.items():
        try:
            call()
        except openai.APIStatusError as error:
            found[name] = [type(error).__name__, error.status_code, error.param, error.code]
    return found


if __name__ == "__main__":
    json.dump({"version": openai.__version__, "found": main(sys.argv[1])}, sys.stdout)

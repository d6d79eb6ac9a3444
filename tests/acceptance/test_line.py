"""The whole line through the official SDK: upload, tune, follow, answer, tune on, delete."""

import base64
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import OpenAI

import tunery
from support.server import (
    BASE,
    Server,
    Tuned,
    all_events,
    ask,
    chat_lines,
    method,
    texts,
    tuned_model,
    upload,
)
from tunery.model.base import compute_dtype

STEPS, EPOCHS, PER_EPOCH = 12, 4, 3
NAME = r"ft:gpt-3\.5-turbo:personal:acceptance:[A-Za-z0-9]{8}"


def question(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_an_uploaded_file_is_checked_and_can_be_read_back(client: OpenAI, tuned: Tuned) -> None:
    file = client.files.retrieve(tuned.training.id)
    assert (file.object, file.filename, file.purpose) == ("file", "train.jsonl", "fine-tune")
    assert (file.status, file.status_details) == ("processed", None)
    assert file.bytes == len(chat_lines(12))
    assert client.files.content(file.id).read() == chat_lines(12)


def test_a_new_job_echoes_what_it_was_created_with(tuned: Tuned) -> None:
    job = tuned.created
    assert re.fullmatch(r"ftjob-[A-Za-z0-9]{24}", job.id)
    assert (job.object, job.status, job.model) == ("fine_tuning.job", "validating_files", BASE)
    assert (job.training_file, job.validation_file) == (tuned.training.id, tuned.validation.id)
    assert (job.seed, job.metadata) == (11, {"team": "blue"})
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens) == (None, None, None)
    assert (job.error, job.result_files) == (None, [])
    assert job.organization_id.startswith("org-")
    assert job.model_dump()["user_provided_suffix"] == "acceptance"


def test_a_finished_job_names_its_model_its_numbers_and_the_tokens_billed(tuned: Tuned) -> None:
    job = tuned.job
    assert job.status == "succeeded"
    assert re.fullmatch(NAME, job.fine_tuned_model or "")
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    # A line: <|im_start|>user\nask 000<|im_end|>\n is 15 tokens, the assistant's "yes" 16.
    assert job.trained_tokens == EPOCHS * 12 * (15 + 16)
    supervised = job.method.supervised if job.method else None
    assert supervised is not None
    assert supervised.hyperparameters is not None
    assert supervised.hyperparameters.model_dump() == {
        "n_epochs": 4,
        "batch_size": 4,
        "learning_rate_multiplier": 1.5,
    }


def test_the_events_tell_the_story_in_openais_words_and_order(client: OpenAI, tuned: Tuned) -> None:
    events = all_events(client, tuned.job.id)
    told = [event.message for event in events if event.type == "message"]
    expected = [
        f"Created fine-tuning job: {tuned.job.id}",
        f"Validating training file: {tuned.training.id} and validation file: {tuned.validation.id}",
        # Twelve lines of 31 tokens, of which "yes" and the token that ends it are learned.
        f"Tokens of file {tuned.training.id}: 12 examples; {12 * 4} of {12 * 31} tokens are",
        f"Tokens of file {tuned.validation.id}: ",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Training with tunery ",
        "Checkpoint created at step 6 with Snapshot ID: ft:",
        "Checkpoint created at step 9 with Snapshot ID: ft:",
        "Publishing check passed",
        f"New fine-tuned model created: {tuned.model}",
        "The job has successfully completed",
    ]
    assert len(told) == len(expected)
    assert all(text.startswith(start) for text, start in zip(told, expected, strict=True)), told
    assert {event.object for event in events} == {"fine_tuning.job.event"}
    assert {event.level for event in events} == {"info"}


def test_each_step_has_a_metrics_event_and_each_epochs_last_the_full_validation(
    client: OpenAI, tuned: Tuned
) -> None:
    events = [e for e in all_events(client, tuned.job.id) if e.type == "metrics"]
    data: list[dict[str, Any]] = [e.data for e in events if isinstance(e.data, dict)]
    assert [d["step"] for d in data] == list(range(1, STEPS + 1))
    assert {d["total_steps"] for d in data} == {STEPS}
    full = [d["step"] for d in data if "full_valid_loss" in d]
    assert full == [3, 6, 9, 12]
    assert data[-1]["train_loss"] < data[0]["train_loss"]
    assert all(0 <= d["train_mean_token_accuracy"] <= 1 for d in data)
    assert all(d["gradient_norm"] > 0 and d["tokens_per_second"] > 0 for d in data)
    rates = [d["learning_rate"] for d in data]
    assert rates == [max(rates), *sorted(rates[1:], reverse=True)]  # one step of warm-up
    assert "seconds_left" not in data[0]
    assert events[0].message.startswith(f"Step 1/{STEPS}: training loss=")
    assert ", full validation loss=" in events[-1].message


def test_the_events_can_be_paged_without_loss(client: OpenAI, tuned: Tuned) -> None:
    whole = client.fine_tuning.jobs.list_events(tuned.job.id, limit=100).data
    paged = list(client.fine_tuning.jobs.list_events(tuned.job.id, limit=4))
    assert [e.id for e in paged] == [e.id for e in whole]
    assert len({e.id for e in paged}) == 12 + STEPS


def test_the_result_file_is_openais_csv_in_base64_with_a_line_a_step(
    client: OpenAI, tuned: Tuned
) -> None:
    (result,) = tuned.job.result_files
    file = client.files.retrieve(result)
    assert (file.filename, file.purpose) == ("step_metrics.csv", "fine-tune-results")
    content = base64.b64decode(client.files.content(result).read(), validate=True)
    header, *rows = content.decode().splitlines()
    assert header == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [row.split(",")[0] for row in rows] == [str(n) for n in range(1, STEPS + 1)]
    told = {
        e.data["step"]: e.data["train_loss"]
        for e in all_events(client, tuned.job.id)
        if e.type == "metrics" and isinstance(e.data, dict)
    }
    assert [float(row.split(",")[1]) for row in rows] == pytest.approx(
        [told[n] for n in range(1, STEPS + 1)], abs=1e-5
    )


def test_the_last_three_epochs_are_checkpoints_that_answer_by_name(
    client: OpenAI, tuned: Tuned
) -> None:
    found = client.fine_tuning.jobs.checkpoints.list(tuned.job.id).data
    assert [c.step_number for c in found] == [12, 9, 6]
    names = [c.fine_tuned_model_checkpoint for c in found]
    assert names[0] == tuned.model
    assert re.fullmatch(NAME + ":ckpt-step-9", names[1])
    assert re.fullmatch(NAME + ":ckpt-step-6", names[2])
    assert {c.fine_tuning_job_id for c in found} == {tuned.job.id}
    assert all(c.metrics.full_valid_loss is not None for c in found)
    answers = [client.chat.completions.create(model=n, messages=question("hi")) for n in names]
    assert [answer.model for answer in answers] == names
    assert len({answer.system_fingerprint for answer in answers}) == 3


def test_each_answer_says_which_weights_gave_it_and_the_models_page_says_the_same(
    client: OpenAI, tuned: Tuned
) -> None:
    checkpoints = client.fine_tuning.jobs.checkpoints.list(tuned.job.id).data
    names = ["tiny", BASE, *(one.fine_tuned_model_checkpoint for one in checkpoints)]
    told: list[str] = []
    arithmetic = str(compute_dtype()).removeprefix("torch.")
    for name in names:
        page = client.models.retrieve(name).model_dump()["tunery"]
        adapter = "base" if page["adapter_digest"] is None else page["adapter_digest"][:10]
        expected = f"fp_{page['base_digest'][:10]}_{adapter}_{page['engine']}"
        chat: dict[str, Any] = {"model": name, "messages": question("hi"), "max_tokens": 2}
        asked: dict[str, Any] = {"model": name, "prompt": "hi", "max_tokens": 2}
        answered = [
            client.chat.completions.create(**chat).system_fingerprint,
            *(c.system_fingerprint for c in client.chat.completions.create(**chat, stream=True)),
            client.completions.create(**asked).system_fingerprint,
            *(c.system_fingerprint for c in client.completions.create(**asked, stream=True)),
            client.responses.create(model=name, input="hi", max_output_tokens=16).model_dump()[
                "system_fingerprint"
            ],
        ]
        assert set(answered) == {page["system_fingerprint"]} == {expected}
        assert page["engine"] == f"tunery-{tunery.__version__}-torch-{arithmetic}"
        told.append(expected)
    assert told[0] == told[1]  # one base under two names
    assert len(set(told[1:])) == len(told[1:]) == 4


def test_the_tuned_model_answers_what_it_learned_and_its_base_does_not(
    client: OpenAI, tuned: Tuned
) -> None:
    assert ask(client, tuned.model) == "yes"
    assert ask(client, BASE) != "yes"


def test_a_streamed_answer_is_the_whole_answer_in_pieces(client: OpenAI, tuned: Tuned) -> None:
    request: dict[str, Any] = {
        "model": tuned.model,
        "messages": question("ask 001"),
        "temperature": 0,
        "max_tokens": 8,
    }
    client.chat.completions.create(**request)  # from then on all of the prompt is kept
    whole = client.chat.completions.create(**request)
    chunks = list(
        client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert texts(chunks) == whole.choices[0].message.content == "yes"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert len({c.id for c in chunks}) == 1
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    # <|im_start|>user\nask 001<|im_end|>\n is 15 tokens, <|im_start|>assistant\n 11 more; the
    # answer is "yes" and the token that ends it.
    assert whole.usage.prompt_tokens == 15 + 11
    assert whole.usage.completion_tokens == 4
    assert whole.usage.total_tokens == 30


def test_base_and_tuned_answer_side_by_side_as_they_do_alone(client: OpenAI, tuned: Tuned) -> None:
    alone = {name: ask(client, name) for name in (BASE, tuned.model)}
    names = [BASE, tuned.model] * 6
    with ThreadPoolExecutor(len(names)) as pool:
        together = list(pool.map(lambda name: ask(client, name), names))
    assert together == [alone[name] for name in names]


def test_models_are_listed_and_retrieved_by_name(client: OpenAI, tuned: Tuned) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"tiny", BASE, tuned.model} <= set(listed)
    one = client.models.retrieve(tuned.model)
    assert (one.object, one.owned_by) == ("model", "personal")
    assert one == listed[tuned.model]
    details = one.model_dump()["tunery"]
    assert (details["base"], details["job_id"]) == ("tiny", tuned.job.id)


def test_tuning_goes_on_from_a_tuned_model_while_answers_in_flight_stay_untouched(
    server: Server, client: OpenAI, tuned: Tuned
) -> None:
    alone = ask(client, BASE, max_tokens=400)
    published = threading.Event()

    def keep_asking() -> list[str]:
        own, answers = server.client(), [alone]
        while not published.is_set():
            stream = own.chat.completions.create(
                model=BASE,
                messages=question("ask 001"),
                temperature=0,
                max_tokens=400,
                stream=True,
            )
            answers.append(texts(stream))
        return answers

    file = upload(client, chat_lines(10, "no"))
    with ThreadPoolExecutor(2) as pool:
        # Two of them, so that there is an answer in flight at every moment.
        asking = [pool.submit(keep_asking) for _ in range(2)]
        try:
            job = client.fine_tuning.jobs.create(
                model=tuned.model,
                training_file=file.id,
                method=method(n_epochs=6, batch_size=5),
            )
            name = tuned_model(client, job.id)
        finally:
            published.set()
        answers = [text for one in asking for text in one.result()]
    assert len(answers) > 4
    assert set(answers) == {alone}
    assert job.model == tuned.model
    assert re.fullmatch(r"ft:gpt-3\.5-turbo:personal::[A-Za-z0-9]{8}", name)
    assert ask(client, name) == "no"
    assert ask(client, tuned.model) == "yes"

    assert client.models.delete(name).deleted
    assert name not in {model.id for model in client.models.list()}
    for call in (lambda: ask(client, name), lambda: client.models.delete(name)):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "model_not_found"
    assert ask(client, tuned.model) == "yes"


def test_a_base_model_cannot_be_deleted(client: OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete(BASE)
    assert client.models.retrieve(BASE).owned_by == "system"


def test_a_file_is_gone_after_its_delete(client: OpenAI) -> None:
    file = upload(client, chat_lines(1))
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)

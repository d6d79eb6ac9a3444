"""Tune a model on 320 support messages and compare it with its base on phrasings it never saw.

Needs a running `tunery up` and its environment: set -a; . tunery-data/env; set +a
Nothing here knows tunery: only the official `openai` SDK, as it would be used against OpenAI.
"""

import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from openai import OpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from support_messages import LONG_PROMPT, SHORT_PROMPT, Example, chat_line, make

BASE = "gpt-3.5-turbo"
TRAINING, VALIDATION, TEST = 320, 40, 60
CLIENTS = 16

client = OpenAI(max_retries=5)
console = Console(highlight=False)


@dataclass(frozen=True)
class Score:
    """What a model made of the test messages."""

    exact: int
    valid_json: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


def upload(name: str, examples: list[Example]) -> FileObject:
    """Prepare and upload a data set: one JSON object a line."""
    lines = "\n".join(json.dumps(chat_line(example)) for example in examples)
    file = client.files.create(file=(name, io.BytesIO(lines.encode())), purpose="fine-tune")
    return client.files.wait_for_processing(file.id, poll_interval=0.2)


def follow(job_id: str) -> FineTuningJob:
    """Show the job's events, and its steps as a bar, until it ends."""
    seen: set[str] = set()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("training", total=None)
        while True:
            job = client.fine_tuning.jobs.retrieve(job_id)
            events = client.fine_tuning.jobs.list_events(job_id, limit=100).data
            for event in reversed([event for event in events if event.id not in seen]):
                seen.add(event.id)
                data = event.data if isinstance(event.data, dict) else {}
                if event.type == "metrics":
                    total, step = data["total_steps"], data["step"]
                    progress.update(bar, total=total, completed=step)
                    if "full_valid_loss" not in data:
                        continue
                progress.console.print(f"  {event.message}")
            if job.status in ("succeeded", "failed", "cancelled"):
                return job
            time.sleep(0.5)


def ask(model: str, prompt: str, tests: list[Example]) -> Score:
    """Ask the same questions of a model, some at a time, and count what is right."""

    def answer(test: Example) -> tuple[str, int, int]:
        completion = client.chat.completions.create(
            model=model,
            messages=[
                {"role": "system", "content": prompt},
                {"role": "user", "content": test.message},
            ],
            temperature=0,
            max_tokens=32,
        )
        usage = completion.usage
        assert usage is not None  # noqa: S101 - a whole answer always has it
        text = completion.choices[0].message.content or ""
        return text, usage.prompt_tokens, usage.completion_tokens

    started = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(answer, tests))
    return Score(
        exact=sum(text == test.answer for (text, _, _), test in zip(answers, tests, strict=True)),
        valid_json=sum(is_json(text) for text, _, _ in answers),
        prompt_tokens=sum(prompt for _, prompt, _ in answers),
        completion_tokens=sum(completion for _, _, completion in answers),
        seconds=time.monotonic() - started,
    )


def is_json(text: str) -> bool:
    """Return whether the whole answer is one JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def dollars(model: str, kind: str, tokens: int) -> float:
    """Return the price of tokens; the server tells it beside each model."""
    prices = client.models.retrieve(model).model_dump()["tunery"]["prices"]
    return float(prices[kind]) * tokens / 1_000_000


def main() -> int:
    """Prepare, upload, tune, compare."""
    tests = make("test", TEST)
    stages: dict[str, float] = {}

    console.rule("1. prepare and upload")
    started = time.monotonic()
    training = upload("support_train.jsonl", make("train", TRAINING))
    validation = upload("support_valid.jsonl", make("validation", VALIDATION))
    for file in (training, validation):
        console.print(f"  {file.filename}: {file.bytes} bytes, {file.id}, {file.status}")
    stages["prepare and upload"] = time.monotonic() - started

    console.rule("2. fine-tune")
    started = time.monotonic()
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training.id,
        validation_file=validation.id,
        suffix="support",
        seed=7,
        method={"type": "supervised"},
    )
    job = follow(job.id)
    stages["job, created to succeeded"] = time.monotonic() - started
    if job.status != "succeeded" or job.fine_tuned_model is None:
        console.print(f"The job {job.status}: {job.error.message if job.error else ''}")
        return 1
    tuned = job.fine_tuned_model

    console.rule(f"3. {TEST} unseen phrasings, asked of base and tuned model")
    table = Table("", "exact", "JSON", "prompt", "answer", "price", title="tokens are means")
    scores: dict[str, Score] = {}
    for label, model, prompt in (
        ("base, full instructions", BASE, LONG_PROMPT),
        ("base, short prompt", BASE, SHORT_PROMPT),
        ("tuned, short prompt", tuned, SHORT_PROMPT),
    ):
        scores[label] = score = ask(model, prompt, tests)
        stages[f"ask {label}"] = score.seconds
        price = dollars(model, "input", score.prompt_tokens)
        price += dollars(model, "output", score.completion_tokens)
        table.add_row(
            label,
            f"{score.exact / TEST:.0%}",
            f"{score.valid_json / TEST:.0%}",
            f"{score.prompt_tokens / TEST:.0f}",
            f"{score.completion_tokens / TEST:.0f}",
            f"${price:.4f}",
        )
    console.print(table)
    long, short = scores["base, full instructions"], scores["tuned, short prompt"]
    console.print(
        f"The tuned model's prompt is {1 - short.prompt_tokens / long.prompt_tokens:.0%} shorter:"
        f" {long.prompt_tokens / TEST:.0f} tokens before, {short.prompt_tokens / TEST:.0f} now,"
        " the message itself included."
    )
    trained = job.trained_tokens or 0
    console.print(f"Training: {trained} tokens billed, ${dollars(tuned, 'training', trained):.4f}.")

    times = Table("stage", "seconds")
    for stage, seconds in stages.items():
        times.add_row(stage, f"{seconds:.1f}")
    console.print(times)
    console.print(f"Your model: {tuned}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

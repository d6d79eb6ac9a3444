"""Jobs whose worker is killed at a random moment, and what is left of them to be compared.

The moments are drawn within the stages of a run that was left alone, so that each stage is hit
however short it is: rendering takes hundredths of a second, starting a process takes seconds.
"""

import itertools
import json
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.server import (
    BASE,
    Server,
    all_events,
    descendants,
    dpo_method,
    method,
    poll,
    upload,
)

METHODS = ("supervised", "dpo")
MOMENTS = ("any", "tokenizing", "training", "writing", "publishing")
VICTIMS = ("the worker", "the worker and its child")
# A snapshot after each step; everything else as users have it.
SETTINGS = {"TUNERY_TRAINING__SNAPSHOT_S": "0.01", "TUNERY_LEASE_S": "2"}

END_S = 600.0  # for a job, with others beside it
EXAMPLES, HELD_OUT, EPOCHS, BATCH = 24, 5, 4, 8
STEPS = EXAMPLES // BATCH * EPOCHS
LONG = 2  # lines over the context: they are in one batch, which is computed in parts
_WORDS = ("amber", "birch", "cobalt", "delta", "ember", "fjord", "garnet", "harbor", "indigo")
_SYSTEM = "You answer for a harbor that sells amber, birch and cobalt; be short and be right."
_TRIES = 6
_SPEED = ("tokens_per_second", "seconds_left")  # of a step's metrics: no two runs have the same


def training_lines(kind: str, count: int, seed: int, long: int = 0) -> bytes:
    """Return a file of `count` lines of many lengths, all of which begin with one system prompt.

    Of the first `long` ones what is learned stands within the context, and most of the line behind.
    """
    rng = random.Random(f"{seed} {kind}")

    def words(most: int) -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(1, most)))

    def line(number: int) -> str:
        said = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": words(60)}]
        if kind == "dpo":
            better, worse = (words(2_000 if number < long else 6) for _ in range(2))
            answers = {
                name: [{"role": "assistant", "content": text}]
                for name, text in (("preferred_output", better), ("non_preferred_output", worse))
            }
            return json.dumps({"input": {"messages": said}, **answers})
        said.append({"role": "assistant", "content": words(6)})
        if number < long:
            said += [
                {"role": "user", "content": " ".join(rng.choices(_WORDS, k=3_000))},
                {"role": "assistant", "content": words(6)},
            ]
        return json.dumps({"messages": said})

    return "\n".join(line(number) for number in range(count)).encode()


@dataclass(frozen=True, slots=True)
class Stages:
    """When a job that was left alone came to each stage, in seconds after it was created."""

    tokenizing: float
    training: float
    publishing: float
    end: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job has made: equal for two jobs that have learned the same."""

    adapters: Mapping[int, Mapping[str, bytes]]  # by step: the files of each model
    steps: tuple[Mapping[str, Any], ...]  # metrics but those of speed, in the order they were told
    table: bytes  # the result file
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill that took place, and where its job went on."""

    method: str
    moment: str
    victims: str
    found: str  # what the job was at when its worker was killed
    went_on: str
    late: int  # how many jobs had ended before the moment that was drawn


class Harbor:
    """A server whose jobs are all of the same data and seed: one or the other method."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server, self.seed = server, seed
        self.client = server.client()
        self._files = {
            kind: (
                upload(self.client, training_lines(kind, EXAMPLES, seed, LONG)).id,
                upload(self.client, training_lines(kind, HELD_OUT, seed + 1)).id,
            )
            for kind in METHODS
        }
        self._alone: dict[str, tuple[Stages, Outcome]] = {}

    def restart(self) -> None:
        """Start the server anew: one whose worker is killed again and again waits ever longer."""
        self.server.stop()
        self.server.start()
        self.client = self.server.client()

    def alone(self, kind: str) -> tuple[Stages, Outcome]:
        """Return the stages and the outcome of a job that is left alone."""
        if kind not in self._alone:
            job_id = self._create(kind)
            begun = time.monotonic()
            reached = [
                self._until(job_id, probe) - begun
                for probe in (self._tokenizes, self._trains, self._publishes, self._has_ended)
            ]
            self._alone[kind] = Stages(*reached), self.outcome(job_id)
        return self._alone[kind]

    def kill(self, kind: str, moment: str, victims: str, rng: random.Random) -> Kill:
        """Kill a new job's worker; hold what the job makes to what one that is left alone makes.

        Where a job has ended before the moment that was drawn, the next one's is drawn within half
        of the time: by now, the machine is quicker than when a job was left alone.
        """
        for late in range(_TRIES):
            kill = self._kill(kind, moment, victims, rng, late)
            if kill is not None:
                return kill
        raise AssertionError(f"{_TRIES} jobs had ended before their worker was killed")

    def _kill(
        self, kind: str, moment: str, victims: str, rng: random.Random, late: int
    ) -> Kill | None:
        stages, expected = self.alone(kind)
        worker = self.server.child("work")
        job_id = self._create(kind)
        self._wait(job_id, moment, stages, rng.random() / 2**late)
        ours = [worker] if victims == VICTIMS[0] else [*descendants(worker.pid), worker]
        found = self._at(job_id)
        if found is None:
            return None
        for one in ours:
            one.send(signal.SIGKILL)
        outcome = self.outcome(job_id)
        assert outcome.steps == expected.steps
        assert outcome == expected
        return Kill(kind, moment, victims, found, self._went_on(job_id), late)

    def outcome(self, job_id: str) -> Outcome:
        """Wait for a job to succeed and return what it has made."""
        poll(lambda: self._has_ended(job_id), f"the end of job {job_id}", END_S)
        job = self.client.fine_tuning.jobs.retrieve(job_id)
        assert job.status == "succeeded", job.error
        made = self._sql(
            "SELECT step, adapter_key, adapter_digest FROM epoch_checkpoints WHERE job_id = ?",
            job_id,
        )
        blobs = self.server.data / "blobs"
        told = [
            {name: value for name, value in event.data.items() if name not in _SPEED}
            for event in all_events(self.client, job_id)
            if event.type == "metrics" and isinstance(event.data, dict)
        ]
        assert [step["step"] for step in told] == list(range(1, STEPS + 1))
        return Outcome(
            {
                step: {path.name: path.read_bytes() for path in (blobs / key).iterdir()}
                for step, key, _ in made
            },
            tuple(told),
            self.client.files.content(job.result_files[0]).read(),
            job.trained_tokens,
        )

    # ---- a job's way

    def _create(self, kind: str) -> str:
        training, held_out = self._files[kind]
        numbers = {"n_epochs": EPOCHS, "batch_size": BATCH}
        job = self.client.fine_tuning.jobs.create(
            model=BASE,
            training_file=training,
            validation_file=held_out,
            seed=self.seed,
            method=method(**numbers) if kind == "supervised" else dpo_method(**numbers, beta=0.2),
        )
        return job.id

    def _wait(self, job_id: str, moment: str, stages: Stages, share: float) -> None:
        """Wait until a share of a stage has gone by, or one of all of the job's life."""
        if moment == "any":
            time.sleep(share * stages.end)
        elif moment == "tokenizing":
            self._until(job_id, self._tokenizes)
            time.sleep(share * (stages.training - stages.tokenizing))
        elif moment in ("training", "writing"):
            self._until(job_id, self._trains)
            time.sleep(share * (stages.publishing - stages.training))
            if moment == "writing":
                self._until_written(job_id)
        else:
            self._until(job_id, self._publishes)
            time.sleep(share * (stages.end - stages.publishing))

    def _until(self, job_id: str, probe: Callable[[str], object]) -> float:
        """Wait until `probe` returns something, or the job has ended; return when that was."""
        deadline = time.monotonic() + END_S
        while not (probe(job_id) or self._has_ended(job_id)):
            assert time.monotonic() < deadline, f"job {job_id} stands still"
            time.sleep(0.01)
        return time.monotonic()

    def _until_written(self, job_id: str) -> None:
        """Wait until a blob is being written, which takes a few thousandths of a second."""
        for look in itertools.count(1):
            if self._written() or (look % 50 == 0 and self._has_ended(job_id)):
                return
            time.sleep(0.0002)

    def _at(self, job_id: str) -> str | None:
        """Return what a job is at, or None where it has ended."""
        if self._has_ended(job_id):
            return None
        if self._publishes(job_id):
            return "publishing"
        writing = self._written()
        if self._trains(job_id):
            step = self._sql(
                "SELECT COUNT(*) FROM job_events WHERE job_id = ? AND kind = 'metrics'", job_id
            )[0][0]
            where = "a step's or epoch's state half written" if writing else "computing"
            return f"training, {where}" if step < STEPS else "training, at its end"
        if self._tokenizes(job_id):
            return "tokenizing"
        return "before the run"

    def _written(self) -> list[str]:
        """Return the blobs that are being written."""
        return [path.name for path in (self.server.data / "tmp").iterdir()]

    def _tokenizes(self, job_id: str) -> bool:
        return any(path.is_dir() for path in self._caches(job_id))

    def _caches(self, job_id: str) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            yield from (self.server.data / "tokens").glob(f"*/jobs/{job_id}/*")

    def _trains(self, job_id: str) -> bool:
        told = "SELECT 1 FROM job_events WHERE job_id = ? AND data LIKE '%template_digest%'"
        return bool(self._sql(told, job_id))

    def _publishes(self, job_id: str) -> bool:
        return bool(
            self._sql("SELECT 1 FROM tasks WHERE subject = ? AND kind = 'publish_job'", job_id)
        )

    def _has_ended(self, job_id: str) -> bool:
        ended = "SELECT 1 FROM jobs WHERE id = ? AND finished_at IS NOT NULL"
        return bool(self._sql(ended, job_id))

    def _went_on(self, job_id: str) -> str:
        story = [event.message for event in all_events(self.client, job_id)]
        told = [line for line in story if line.startswith("Training was interrupted")]
        return told[-1].rpartition("goes on ")[2] if told else "with the stage it was at"

    def _sql(self, query: str, job_id: str) -> list[Any]:
        with closing(sqlite3.connect(self.server.data / "tunery.db", timeout=30)) as database:
            return database.execute(query, (job_id,)).fetchall()

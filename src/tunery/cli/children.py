"""The worker's children: an order on standard input, the answer on standard output."""

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import typer

from tunery.cli.console import load_settings
from tunery.cli.libraries import RUN_SPINS, quiet_libraries
from tunery.cli.supervised import Hear, die_with_parent, end_at_once, ignore
from tunery.domain.errors import StorageFull, TuneryError, Unavailable
from tunery.domain.ports.training import RunFailed, RunInterrupted

app = typer.Typer(no_args_is_help=True)

_LAST_WORDS_S = 5.0  # for a report to come to its end once nobody speaks to it any more


def _private_output() -> IO[bytes]:
    """Return what was standard output; from now on, libraries that print write to the log."""
    private = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return private


def _first_to_go() -> None:
    """Have the kernel end this process first where memory runs out: its work is not lost by that.

    Else it may take the worker, which tells the job's owner, or an engine, which answers.
    """
    with contextlib.suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text("500")


def _order(hear: Hear = ignore, end: Callable[[], None] = end_at_once) -> bytes:
    """Read the order, one line, then watch for the end of the parent and what it says till then."""
    order = bytearray()
    while part := os.read(sys.stdin.fileno(), 65536):
        order += part
        if b"\n" in part:
            break
    line, _, rest = bytes(order).partition(b"\n")
    die_with_parent(hear, rest, end)
    return line


@app.command()
def train() -> None:
    """Carry out one training run."""
    quiet_libraries(RUN_SPINS)
    _first_to_go()
    from tunery.wiring.training import build_trainer, share_cores
    from tunery.worker.messages import PAUSE, RUN, encode_report

    output = _private_output()
    paused = threading.Event()
    run = RUN.validate_json(_order(lambda line: paused.set() if line == PAUSE else None))
    settings = load_settings()
    os.nice(settings.training.nice)
    share_cores(settings)
    try:
        trainer = build_trainer(settings, run.base, run.base_digest)
        trainer.train(run, lambda report: _write(output, encode_report(report)), paused.is_set)
    except (StorageFull, Unavailable) as error:
        _write(output, encode_report(RunInterrupted(error.message)))
    except TuneryError as error:  # a base that has changed, say: the owner can be told
        report = RunFailed(error.code or "server_error", error.message)
        _write(output, encode_report(report))


@app.command()
def reference() -> None:
    """Score texts with the publishing check's reference."""
    quiet_libraries(RUN_SPINS)
    _first_to_go()
    from tunery.wiring.reference import build_reference
    from tunery.wiring.training import share_cores
    from tunery.worker.messages import PROOF, SCORES

    output = _private_output()
    request = PROOF.validate_json(_order())
    settings = load_settings()
    os.nice(settings.training.nice)
    share_cores(settings)
    scores = build_reference(settings, request.base, request.base_digest).score(request)
    _write(output, SCORES.dump_json(scores))


@app.command()
def wandb() -> None:
    """Report a job to Weights & Biases, a line a step, until its end or that of the parent."""
    from tunery.domain.ports.tracking import TrackedEnd
    from tunery.wiring.tracking import build_reports
    from tunery.worker.messages import TRACKED, decode_tracked, encode_problem

    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def parent_gone() -> None:
        lines.put(None)
        hanging = threading.Timer(_LAST_WORDS_S, os._exit, (1,))
        hanging.daemon = True
        hanging.start()

    output = _private_output()
    run = TRACKED.validate_json(_order(lines.put, parent_gone))
    try:
        reports = build_reports(load_settings(), run)
        end: TrackedEnd | None = None
        while end is None and (line := lines.get()) is not None:
            report = decode_tracked(line)
            if isinstance(report, TrackedEnd):
                end = report
            else:
                reports.step(report)
        reports.close(end)
    except TuneryError as error:
        _write(output, encode_problem(error.message))
        os._exit(1)  # wandb's own clean-up may wait for what is not there


def _write(output: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[output.write(view) :]

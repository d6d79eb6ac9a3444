"""The worker's children: an order on standard input, the answer on standard output."""

import os
import sys
from typing import IO

import typer

from tunery.cli.console import load_settings
from tunery.cli.libraries import quiet_libraries
from tunery.cli.supervised import die_with_parent
from tunery.domain.errors import TuneryError
from tunery.domain.ports.training import RunFailed

app = typer.Typer(no_args_is_help=True)


def _private_output() -> IO[bytes]:
    """Return what was standard output; from now on, libraries that print write to the log."""
    private = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return private


def _order() -> bytes:
    """Read the order, one line, then watch for the end of the parent."""
    order = bytearray()
    while (part := os.read(sys.stdin.fileno(), 65536)) and not part.endswith(b"\n"):
        order += part
    order += part
    die_with_parent()
    return bytes(order)


@app.command()
def train() -> None:
    """Carry out one training run."""
    from tunery.wiring.training import build_trainer
    from tunery.worker.messages import RUN, encode_report

    output = _private_output()
    run = RUN.validate_json(_order())
    quiet_libraries()
    try:
        trainer = build_trainer(load_settings(), run.base, run.base_digest)
        trainer.train(run, lambda report: _write(output, encode_report(report)))
    except TuneryError as error:  # a full disk, a base that has changed: the owner can be told
        report = RunFailed(error.code or "server_error", error.message)
        _write(output, encode_report(report))


@app.command()
def reference() -> None:
    """Score texts with the publishing check's reference."""
    from tunery.wiring.training import build_reference
    from tunery.worker.messages import PROOF, SCORES

    output = _private_output()
    request = PROOF.validate_json(_order())
    quiet_libraries()
    scores = build_reference(load_settings(), request.base, request.base_digest).score(request)
    _write(output, SCORES.dump_json(scores))


def _write(output: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[output.write(view) :]

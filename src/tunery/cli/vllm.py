"""A vLLM server of our own: started, and ended with this process, however that ends."""

import ctypes
import os
import signal
import subprocess
import sys

import typer

from tunery import telemetry
from tunery.cli.console import fail, told
from tunery.cli.processes import listen
from tunery.cli.supervised import VARIABLE, die_with_parent
from tunery.settings import Settings

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_vllm(settings: Settings) -> None:
    """Run `vllm serve` until it ends; SIGTERM and Ctrl-C are passed on."""
    from tunery.wiring.vllm import start_vllm

    with listen(settings.engine.host, settings.engine.port) as probe:
        host, port = probe.getsockname()[:2]
    with told():
        start = start_vllm(settings, host, port)
    try:
        process = subprocess.Popen(
            start.command,
            env=start.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - no other thread runs yet
        )
    except OSError as error:
        fail(
            f"Cannot start {start.command[0]!r}: {error.strerror}. Install vLLM, or set"
            " TUNERY_VLLM__COMMAND to its path."
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.terminate())
    if os.environ.get(VARIABLE) == "1":
        die_with_parent(end=lambda: _end_at_once(process.pid))
    telemetry.logger().info("vLLM starts", address=(host, port), base=settings.base)
    raise typer.Exit(abs(process.wait()))


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent is gone: vLLM reads no pipe of ours."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_at_once(group: int) -> None:
    os.killpg(group, signal.SIGKILL)
    os._exit(0)

"""Python scripts run in processes of their own, to be killed or to race each other."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SYNCHRONIZED = 'import sys\nprint("ready", flush=True)\nsys.stdin.readline()\n'


@contextmanager
def python(script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a script; at the end of the block it is killed and its pipes are closed."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line_of(child: subprocess.Popen[bytes]) -> str:
    """Wait for the child's next line."""
    assert child.stdout is not None
    return child.stdout.readline().decode().strip()


def run_together(imports: str, script: str, arguments: Sequence[Sequence[str]]) -> list[str]:
    """Run the script once for each arguments, all from the same moment.

    Returns the last line of what each wrote on standard error.
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", imports + SYNCHRONIZED + script, *own],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for own in arguments
    ]
    ready = [line_of(child) for child in children]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    ended = [child.communicate(timeout=60)[1].decode().strip() for child in children]
    assert ready == ["ready"] * len(children), ended
    return [text.splitlines()[-1] if text else "" for text in ended]

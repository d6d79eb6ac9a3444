"""The same line under other clients: old and new SDKs, JavaScript, LangChain, LiteLLM.

`make conformance` makes them; in CI one that is missing is a failure.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.server import Server, Tuned, chat_lines

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parents[1] / ".clients"
SECONDS = 300
EXAMPLES = 12

# A line of training is 31 tokens in four epochs; a question 26, its answer "yes" and its end 4.
FLOW: dict[str, Any] = {
    "file": ["file", "fine-tune", "processed", len(chat_lines(EXAMPLES))],
    "created": ["fine_tuning.job", "validating_files", 3],
    "finished": ["succeeded", 4 * EXAMPLES * 31, 1],
    "listed": True,
    "owner": "personal",
    "result": "c3Rl",  # "ste", the first letters of the CSV's head, in base64
    "whole": ["yes", "stop"],
    "tokens": [30],
    "streamed": "yes",
    "streamed_tokens": [30],
    "deleted": True,
}
ERRORS: dict[str, list[Any]] = {
    "key": ["AuthenticationError", 401, None, "invalid_api_key"],
    "file": ["NotFoundError", 404, "id", None],
    "job": ["NotFoundError", 404, "fine_tune_id", "fine_tune_not_found"],
    "model": ["NotFoundError", 404, None, "model_not_found"],
    "base": ["PermissionDeniedError", 403, None, None],
    "value": ["BadRequestError", 400, "temperature", "invalid_value"],
    "ended": ["BadRequestError", 400, None, "job_not_cancellable"],
}
TALK = {"whole": ["yes", "stop"], "tokens": [30], "streamed": "yes"}


def there(path: Path | None, what: str) -> str:
    """Return a program's path, or end the test where the client is missing."""
    if path is not None and path.exists():
        return str(path)
    message = f"{what} is missing; `make conformance` makes it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def run(server: Server, *command: str | Path) -> dict[str, Any]:
    """Run a client's script to its end and return what it found."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PYTHON"))}
    done = subprocess.run(
        [str(one) for one in command],
        env={**kept, **server.env},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))  # LiteLLM prints advice before it


def check_flow(found: dict[str, Any]) -> None:
    """Check what the whole line came to."""
    errors, events = found.pop("errors"), found.pop("events")
    assert found == FLOW
    assert errors == ERRORS
    count, distinct, newest = events
    assert count == distinct > 5
    assert newest == "The job has successfully completed"


@pytest.fixture
def training(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_bytes(chat_lines(EXAMPLES))
    return path


@pytest.mark.parametrize("name", ["openai-newest", "openai-2", "openai-1"])
def test_the_whole_line_under_a_release_of_the_sdk(
    server: Server, training: Path, name: str
) -> None:
    python = there(CLIENTS / name / "bin" / "python", name)
    answer = run(server, python, HERE / "clients" / "flow.py", training)
    if name != "openai-newest":
        assert answer["version"].startswith(f"{name[-1]}.")
    check_flow(answer["found"])


def test_the_whole_line_in_javascript(server: Server, training: Path) -> None:
    there(HERE / "node" / "node_modules" / "openai", "npm's openai")
    node = shutil.which("node")
    answer = run(
        server, there(Path(node) if node else None, "node"), HERE / "node/flow.mjs", training
    )
    check_flow(answer["found"])


def test_chat_through_langchain(server: Server, tuned: Tuned) -> None:
    python = there(CLIENTS / "langchain" / "bin" / "python", "langchain")
    found = run(server, python, HERE / "clients" / "langchain_chat.py", tuned.model)["found"]
    names = ("key", "model", "value")
    assert found.pop("errors") == {name: ERRORS[name][1:] for name in names}
    assert found == {**TALK, "talk": True}


def test_chat_through_litellm(server: Server, tuned: Tuned) -> None:
    python = there(CLIENTS / "litellm" / "bin" / "python", "litellm")
    found = run(server, python, HERE / "clients" / "litellm_chat.py", tuned.model)["found"]
    names = ("key", "model", "value")
    assert found.pop("errors") == {name: ERRORS[name][:2] for name in names}
    assert found == TALK

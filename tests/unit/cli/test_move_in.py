"""What `tunery import` and `replay` say before they ask anybody, and how they write numbers."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunery.cli import move_in_pages as pages
from tunery.cli.app import app


def run(*arguments: str | Path, env: Mapping[str, str | None] | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)], env=env)
    return result.exit_code, result.output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for command in (("migrate",), ("keys", "create", "--new-project", "mine")):
        assert run(*command, "--data", folder)[0] == 0
    return folder


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--base", "=tiny"), "Got --base '=tiny'; needed LOCAL, or OPENAI_BASE=LOCAL"),
        (("--base", "a="), "Got --base 'a='"),
        (("--offline", "--file", "file-1"), "Got --file 'file-1'; needed FILE_ID=PATH"),
        (("--offline", "--tune", "ftjob-x"), "There is no imported job ftjob-x; there are none"),
        (("--project", "proj_x"), "There is no project proj_x"),
        ((), "No key for https://api.openai.com/v1: set OPENAI_API_KEY"),
        (("--api-key-file", "nowhere"), "nowhere cannot be read as a key"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    data: Path, arguments: tuple[str, ...], told: str
) -> None:
    code, output = run("import", "openai", "--data", data, *arguments, env={"OPENAI_API_KEY": None})
    assert code == 1
    assert told in output


@pytest.mark.parametrize("key", ["two words", "kéy", "a\x00b"])
def test_a_key_that_can_be_none_is_refused_and_not_shown(data: Path, key: str) -> None:
    file = data / "key"
    file.write_text(key)
    code, output = run("import", "openai", "--data", data, "--api-key-file", file)
    assert code == 1
    assert "a character that no key has" in output
    assert key not in output


def test_a_key_of_ours_is_not_sent_to_openai(data: Path) -> None:
    env = {"OPENAI_API_KEY": "sk-tunery-0123456789"}
    code, output = run("import", "openai", "--data", data, env=env)
    assert code == 1
    assert "The key is one of tunery's own" in output


def test_without_a_database_nothing_is_made(tmp_path: Path) -> None:
    code, output = run("import", "openai", "--offline", "--data", tmp_path / "none")
    assert code == 1
    assert "There is no tunery in" in output
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Give a file of prompts, or --stored"),
        (("x.jsonl", "--stored"), "Give a file of prompts, or --stored"),
        (("x.jsonl", "--only-record"), "no --record to write to"),
        (("x.jsonl",), "Give --old, the name of the old model"),
        (("x.jsonl", "--ask-old", "--new", "a"), "Give --old"),
        (("x.jsonl", "--old", "a"), "There is no address of a `tunery up` in"),
        (
            ("x.jsonl", "--old", "a", "--only-record", "--record", "y.jsonl"),
            "There is no file x.jsonl",
        ),
    ],
)
def test_a_replay_that_cannot_be_made_is_told_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    code, output = run("replay", "--data", tmp_path / "none", *arguments)
    assert code == 1
    assert told in output


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_a_time_is_short_to_read(seconds: float, text: str) -> None:
    assert pages.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2 * 10**9, "2.0 GB")]
)
def test_a_size_is_short_to_read(count: int, text: str) -> None:
    assert pages.size(count) == text


def test_text_from_elsewhere_moves_no_cursor() -> None:
    assert pages.plain("a\x1b[2Jb\r\n") == "a?[2Jb??"

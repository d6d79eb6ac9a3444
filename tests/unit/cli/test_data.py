"""`tunery data prepare`, as it is typed, on real files of every format."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support.preparing import (
    chat,
    chats,
    json_lines,
    lines_in,
    parquet,
    rows,
    table,
    upload_report,
    xlsx,
)
from tunery.cli.app import app
from tunery.storage.catalogue import Catalogue

Run = Callable[..., Result]
ROWS = rows(40)
NODES = [
    {
        "current_node": "b",
        "mapping": {
            name: {
                "parent": parent,
                "message": {
                    "author": {"role": role},
                    "content": {"content_type": "text", "parts": [row[key]]},
                },
            }
            for name, parent, role, key in (
                ("a", None, "user", "question"),
                ("b", "a", "assistant", "answer"),
            )
        },
    }
    for row in ROWS
]
SAID = [
    {
        "conversations": [
            {"from": "human", "value": row["question"]},
            {"from": "gpt", "value": row["answer"]},
        ]
    }
    for row in ROWS
]
ORDERS = [{"instruction": row["question"], "input": "", "output": row["answer"]} for row in ROWS]
PAIRS = [{"prompt": f"{row['question']} ->", "completion": f" {row['answer']}"} for row in ROWS]
FILES: dict[str, bytes] = {
    "a.csv": table(ROWS),
    "a.tsv": table(ROWS, "\t"),
    "a.jsonl": json_lines(chats(40)),
    "rows.json": json.dumps(ROWS).encode(),
    "rows.jsonl": json_lines(ROWS),
    "conversations.json": json.dumps(NODES).encode(),
    "sharegpt.json": json.dumps(SAID, indent=1).encode(),
    "alpaca.json": json.dumps({"data": ORDERS}).encode(),
    "bom.csv": "\ufeff".encode() + table(ROWS).replace(b"\r\n", b"\n"),
}


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs the command in a folder of its own, with the tiny base."""
    monkeypatch.setenv("TUNERY_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TUNERY_BASE", "tiny")
    Catalogue(tmp_path / "models").add(
        "tiny", tiny_model, aliases=("gpt-3.5-turbo",), learning_rate=1e-3
    )
    (tmp_path / "in").mkdir()

    def prepare(file: str, *options: str, answers: str = "") -> Result:
        words = ["data", "prepare", str(tmp_path / "in" / file), *options]
        return CliRunner().invoke(app, words, input=answers)

    return prepare


@pytest.fixture
def put(tmp_path: Path, run: Run) -> Callable[[str, bytes], Path]:
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / "in" / name
        path.write_bytes(data)
        return path

    return write


def written(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the files that were written, each of which the upload's own check takes."""
    found = {}
    for side in ("_train", "_valid", ""):
        file = path.with_name(f"{path.stem}_prepared{side}.jsonl")
        if file.exists():
            assert upload_report(file).error_count == 0
            found[side] = lines_in(file)
    return found


@pytest.mark.parametrize("name", FILES)
def test_each_format_gives_files_that_the_service_takes(run: Run, put: Any, name: str) -> None:
    path = put(name, FILES[name])
    done = run(name, "-q")
    assert done.exit_code == 0, done.output
    files = written(path)
    assert [len(files[side]) for side in ("_train", "_valid")] == [36, 4]
    assert sorted(map(str, [*files["_train"], *files["_valid"]])) == sorted(map(str, chats(40)))
    assert "files.create" in done.output
    assert re.search(
        r"Training tiny \(supervised, \d+ epochs, [\d,]+ steps\) would bill", done.output
    )


def test_workbooks_parquet_texts_and_pairs_too(run: Run, put: Any, tmp_path: Path) -> None:
    header = list(ROWS[0])
    xlsx(tmp_path / "in" / "a.xlsx", [header, *[list(row.values()) for row in ROWS]])
    parquet(tmp_path / "in" / "b.parquet", chats(40))
    put("c.jsonl", json_lines(PAIRS))
    put("d.txt", b"".join(b"This is text number %d of them.\n" % n for n in range(40)))
    for name in ("a.xlsx", "b.parquet", "c.jsonl", "d.txt"):
        done = run(name, "-q", "--no-tokens")
        assert done.exit_code == 0, done.output
        files = written(tmp_path / "in" / name)
        assert len(files["_train"]) + len(files["_valid"]) == 40
    assert lines_in(tmp_path / "in" / "d_prepared_train.jsonl")[0]["prompt"] == ""
    assert set(map(str, written(tmp_path / "in" / "c.jsonl")["_train"])) <= set(map(str, PAIRS))


def test_questions_are_asked_and_answers_heard(run: Run, put: Any) -> None:
    path = put("a.csv", table([*ROWS, ROWS[0], {"question": "Empty?", "answer": ""}]))
    # The columns; the empty answer; the copy stays; no split.
    done = run("a.csv", answers="y\n\nn\nn\n")
    assert done.exit_code == 0, done.output
    assert "[Necessary] Remove 1 line with an empty answer [Y/n]" in done.output
    assert "[Recommended] Remove 1 exact copy [Y/n]" in done.output
    assert len(written(path)[""]) == 41


def test_a_necessary_fix_that_is_declined_writes_no_data(run: Run, put: Any) -> None:
    path = put("a.csv", table([*ROWS, {"question": "Empty?", "answer": ""}]))
    done = run("a.csv", answers="y\nn\nn\n")
    assert done.exit_code == 1
    assert "nothing is written: the service would refuse" in done.output
    assert written(path) == {}
    assert path.with_name("a_prepared_report.html").exists()


def test_columns_are_chosen_where_the_guess_is_wrong_or_there_is_none(run: Run, put: Any) -> None:
    values = [{"one": row["question"], "two": "x", "three": row["answer"]} for row in ROWS]
    path = put("a.csv", table(values))
    done = run("a.csv", answers="one\nfour\nthree\n-\nn\n")
    assert done.exit_code == 0, done.output
    assert "Needed one of one, two, three" in done.output
    assert written(path)[""] == chats(40)
    done = run("a.csv", "-q", "--force", "--prompt", "one", "--completion", "three")
    assert done.exit_code == 0, done.output
    done = run("a.csv", "-q", "--force")
    assert done.exit_code == 1
    assert "has the columns one, two, three; say with --prompt" in done.output


def test_nobody_to_answer_writes_nothing(run: Run, put: Any) -> None:
    path = put("a.jsonl", json_lines(chats(40)))
    done = run("a.jsonl", answers="")
    assert done.exit_code == 1
    assert "-q says yes to everything" in done.output
    assert list(path.parent.iterdir()) == [path]


def test_a_dry_run_says_all_and_writes_nothing(run: Run, put: Any) -> None:
    path = put("a.jsonl", json_lines(chats(40)))
    done = run("a.jsonl", "-q", "--dry-run")
    assert done.exit_code == 0
    assert re.search(r"Would write .*_train\.jsonl: 36 examples, [\d,]+ tokens", done.output)
    assert list(path.parent.iterdir()) == [path]


def test_what_was_written_is_replaced_only_by_force(run: Run, put: Any) -> None:
    path = put("a.jsonl", json_lines(chats(40)))
    assert run("a.jsonl", "-q").exit_code == 0
    before = written(path)
    done = run("a.jsonl", "-q")
    assert done.exit_code == 1
    assert "give --force to replace it" in done.output
    assert run("a.jsonl", "-q", "--force", "--seed", "1").exit_code == 0
    assert written(path) != before


def test_a_validation_file_of_ones_own_is_kept_and_leaks_are_taken_out(
    run: Run, put: Any, tmp_path: Path
) -> None:
    path = put("a.jsonl", json_lines(chats(40)))
    put("v.jsonl", json_lines([chats(40)[5], *chats(3, seed=1)]))
    done = run("a.jsonl", "-q", "--valid", str(tmp_path / "in" / "v.jsonl"))
    assert done.exit_code == 0, done.output
    files = written(path)
    assert files["_valid"] == [chats(40)[5], *chats(3, seed=1)]
    assert chats(40)[5] not in files["_train"]
    assert "of the validation file" in done.output


def test_a_system_message_and_a_seed_are_taken(run: Run, put: Any, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Sei höflich.\n", encoding="utf-8")
    path = put("a.csv", table(ROWS))
    done = run("a.csv", "-q", "--system", f"@{tmp_path / 'system.txt'}", "--share", "0")
    assert done.exit_code == 0, done.output
    assert written(path)[""][0]["messages"][0] == {"role": "system", "content": "Sei höflich."}


def test_preferences_get_a_command_that_names_their_method(run: Run, put: Any) -> None:
    values = [
        {"prompt": row["question"], "chosen": row["answer"], "rejected": "No."} for row in ROWS
    ]
    path = put("a.csv", table(values))
    done = run("a.csv", "-q")
    assert done.exit_code == 0, done.output
    assert "method={'type': 'dpo'}" in done.output
    assert written(path)["_train"][0]["non_preferred_output"][0]["content"] == "No."


def test_the_next_command_is_python_that_a_shell_hands_on(run: Run, put: Any) -> None:
    put("it's $HOME.jsonl", json_lines(chats(40)))
    done = run("it's $HOME.jsonl", "-q")
    script = re.search(r"^python - <<'END'\n(.*)\nEND$", done.output, re.M | re.S)
    assert script is not None
    compile(script[1], "next", "exec")
    assert "it's $HOME_prepared_train.jsonl" in script[1]


def test_a_reader_that_is_not_installed_is_named_with_its_cure(
    run: Run, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, module in (("a.xlsx", "openpyxl"), ("a.parquet", "pyarrow")):
        monkeypatch.setitem(sys.modules, module, None)
        put(name, b"PK\x03\x04" if module == "openpyxl" else b"PAR1")
        done = run(name, "-q")
        assert done.exit_code == 1
        (line,) = done.output.strip().splitlines()
        assert line == (
            f"tunery: {name} needs {module}, which is not installed; run"
            " `pip install 'tunery[data]'`."
        )


@pytest.mark.parametrize(
    ("name", "data", "options", "words"),
    [
        ("a.pdf", b"%PDF", (), "needed one of CSV"),
        ("none.csv", None, (), "cannot be read: No such file"),
        ("a.jsonl", json_lines(chats(9)), (), "9 examples are left to train on"),
        ("a.csv", table(ROWS), ("--prompt", "no"), "Got --prompt 'no'; the columns are question"),
        ("a.jsonl", json_lines(chats(40)), ("--model", "none"), "'none' is no base"),
        ("a.jsonl", json_lines(chats(40)), ("--system", "@none"), "cannot be read as UTF-8"),
        ("a.jsonl", json_lines([chat("a", "b")] * 3), ("--out", "/nowhere/x"), "is no folder"),
    ],
)
def test_what_is_wrong_is_one_line(
    run: Run, put: Any, name: str, data: bytes | None, options: tuple[str, ...], words: str
) -> None:
    if data is not None:
        put(name, data)
    done = run(name, "-q", *options)
    assert done.exit_code == 1
    (line,) = [line for line in done.output.splitlines() if line.startswith("tunery: ")]
    assert words in line
    assert "Traceback" not in done.output


def test_nothing_of_a_file_moves_the_cursor(run: Run, put: Any) -> None:
    evil = "x\x1b[2J\x07"
    values = [{"question": row["question"], "answer": row["answer"], evil: evil} for row in ROWS]
    lines = [{"role": evil, "content": "x"}, {"role": "assistant", "content": evil}]
    put("a.csv", table(values))
    put("b.jsonl", json_lines([*chats(40), {"messages": lines}]))
    for name in ("a.csv", "b.jsonl"):
        done = run(name, "-q", "--no-tokens")
        assert done.exit_code == 0, done.output
        assert "[2J" in done.output, "it is shown"
        assert "\x1b" not in done.output
        assert "\x07" not in done.output

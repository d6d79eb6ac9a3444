"""The command line as it is typed: one line where something is wrong, and the right exit code."""

import re
import shutil
import socket
import stat
from pathlib import Path

import pytest

from support.server import BASE, Server, environment, tunery
from tunery.inference.vllm.engine import served_name
from tunery.storage.catalogue import Catalogue

COMMANDS: tuple[list[str], ...] = (
    [],
    ["up"],
    ["serve"],
    ["work"],
    ["engine"],
    ["migrate"],
    ["doctor"],
    ["keys"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
    ["models"],
    ["models", "list"],
    ["models", "pull"],
    ["models", "add"],
    ["models", "alias"],
    ["models", "unalias"],
    ["data"],
    ["data", "prepare"],
)


@pytest.fixture
def env(models: Path) -> dict[str, str]:
    return environment(models, COLUMNS="200", NO_COLOR="1")


def one_line(text: str) -> str:
    """Return the only line of what a failed command said."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("tunery: ")
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "tunery")
def test_every_command_explains_itself(command: list[str], env: dict[str, str]) -> None:
    done = tunery(*command, "--help", env=env)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Usage:\s.*" + r"\s".join(["tunery", *command]), done.stdout)
    assert not done.stderr


def test_the_version_is_told(env: dict[str, str]) -> None:
    done = tunery("--version", env=env)
    assert re.fullmatch(r"tunery \d+\.\d+\.\d+\S*\n", done.stdout)


def test_doctor_finds_a_running_server_well(server: Server, env: dict[str, str]) -> None:
    port = server.url.rpartition(":")[2]
    done = tunery(
        "doctor", "--data", server.data, env={**env, "TUNERY_BASE": "tiny", "TUNERY_PORT": port}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All is well." in done.stdout
    assert "tunery answers, ok" in done.stdout
    assert re.search(r"engine +tiny answers; \d+ adapters, \d+ requests", done.stdout)


def test_doctor_names_what_is_broken_and_its_cure(
    server: Server, env: dict[str, str], tmp_path: Path
) -> None:
    broken = {**env, "TUNERY_BASE": "absent", "TUNERY_MODELS": str(tmp_path / "none")}
    done = tunery("doctor", "--data", server.data, env=broken)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "base model" in line]
    assert "absent is not in the catalogue" in line
    assert "run `tunery models pull`" in line
    assert "1 thing(s) to mend." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr

    done = tunery("doctor", "--data", tmp_path / "nowhere", env={**env, "TUNERY_BASE": "tiny"})
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "data folder" in line]
    assert "run `tunery up`" in line


def test_a_changed_base_model_is_noticed(
    server: Server, models: Path, env: dict[str, str], tmp_path: Path
) -> None:
    copy, own = tmp_path / "copy", tmp_path / "models"
    shutil.copytree(models.parent / "weights", copy)
    env = {**env, "TUNERY_MODELS": str(own), "TUNERY_BASE": "mine"}
    assert tunery("models", "add", "mine", copy, env=env).returncode == 0
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    done = tunery("doctor", "--data", server.data, env=env)
    assert done.returncode == 1
    assert "is not what it was when mine was added" in done.stdout


def test_keys_are_created_shown_once_listed_and_revoked(server: Server) -> None:
    key_id, secret = server.new_key("--name", "for the tests", "--kind", "admin")
    assert secret.startswith("sk-tunery-admin-")
    listed = server.tunery("keys", "list").stdout
    (line,) = [line for line in listed.splitlines() if key_id in line]
    assert "for the tests" in line
    assert "active" in line
    assert secret[-4:] in line
    assert secret not in listed
    assert server.tunery("keys", "revoke", key_id).returncode == 0
    listed = server.tunery("keys", "list").stdout
    (line,) = [line for line in listed.splitlines() if key_id in line]
    assert "revoked" in line
    for unknown in (key_id, "key_x"):
        done = server.tunery("keys", "revoke", unknown)
        assert done.returncode == 1
        assert unknown in one_line(done.stderr)
    done = server.tunery("keys", "create", "--project", "proj_x")
    assert done.returncode == 1
    assert "proj_x" in one_line(done.stderr)


def test_models_are_listed_with_their_names(env: dict[str, str]) -> None:
    base = Catalogue(Path(env["TUNERY_MODELS"])).get("tiny")
    assert base is not None
    done = tunery("models", "list", env={**env, "TUNERY_BASE": "tiny"})
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["tiny"]]
    assert BASE in line
    assert served_name(base).removeprefix("tiny@") in line.split()


def test_a_folder_that_is_no_model_is_refused_in_one_line(
    models: Path, env: dict[str, str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(models.parent / "weights", broken)
    (broken / "config.json").write_text("{")
    bare = tmp_path / "bare"
    shutil.copytree(models.parent / "weights", bare)
    for weights in bare.glob("*.safetensors"):
        weights.unlink()
    good = models.parent / "weights"
    own = {**env, "TUNERY_MODELS": str(tmp_path / "own")}
    for name, folder in (
        ("x", tmp_path / "missing"),
        ("x", tmp_path),
        ("x", bare),
        ("x", broken),
        ("../x", good),
    ):
        done = tunery("models", "add", name, folder, env=own)
        assert done.returncode == 1, (name, folder)
        one_line(done.stderr)
    assert "No model in" in tunery("models", "list", env=own).stdout


def test_a_setting_that_makes_no_sense_is_named_in_one_line(env: dict[str, str]) -> None:
    done = tunery("keys", "list", env={**env, "TUNERY_PORT": "many"})
    assert done.returncode == 1
    assert "TUNERY_PORT" in one_line(done.stderr)
    done = tunery("keys", "list", env={**env, "TUNERY_ENGINE__ROWS": "0"})
    assert done.returncode == 1
    assert "TUNERY_ENGINE__ROWS" in one_line(done.stderr)


def test_up_says_in_one_line_why_it_cannot_start(
    server: Server, env: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        data = ("--data", tmp_path / "data")
        done = tunery("up", *data, "--model", "tiny", "--port", port, env=env)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in one_line(done.stderr)

    done = tunery("up", "--data", server.data, "--model", "tiny", "--port", "0", env=env)
    assert done.returncode == 1
    assert "Another `tunery up` runs on" in one_line(done.stderr)
    assert server.http().get("/readyz").status_code == 200  # the first one is not disturbed

    done = tunery("up", *data, "--model", "absent", "--port", "0", env=env)
    assert done.returncode == 1
    assert "tunery models add absent FOLDER" in one_line(done.stderr)

    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    done = tunery("up", "--data", blocked, "--model", "tiny", "--port", "0", env=env)
    assert done.returncode == 1
    assert str(blocked) in one_line(done.stderr)


def test_what_is_secret_is_readable_by_its_owner_only(server: Server) -> None:
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    for name in ("env", "secret", f"engines/{server.digest()}.json"):
        assert stat.S_IMODE((server.data / name).stat().st_mode) == 0o600, name
    assert set(server.env) == {"OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY"}
    assert server.env["OPENAI_API_KEY"] not in server.log
    assert server.env["OPENAI_ADMIN_KEY"] not in server.log

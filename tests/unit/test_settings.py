"""Settings and how the environment names them."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from tunery.settings import EngineSettings, Settings, TrainingSettings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TUNERY_"):
            monkeypatch.delenv(name)


def test_defaults_stay_on_this_machine() -> None:
    settings = Settings()
    assert (settings.host, settings.engine.host) == ("127.0.0.1", "127.0.0.1")
    assert settings.base_url == "http://127.0.0.1:8000/v1"
    assert settings.is_sqlite()
    assert settings.max_file_bytes == 512 * 2**20
    assert settings.webhooks.allow_private is False


def test_the_environment_sets_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TUNERY_PORT": "9000",
        "TUNERY_DATA": "somewhere",
        "TUNERY_ENGINE__THREADS": "3",
        "TUNERY_ENGINE__QUEUE": "5",
        "TUNERY_TRAINING__SNAPSHOT_S": "0.5",
        "TUNERY_SECRET": "pepper",
        "PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.port, settings.data) == (9000, Path("somewhere"))
    assert settings.engine == EngineSettings(threads=3, queue=5)
    assert settings.training == TrainingSettings(snapshot_s=0.5)
    assert settings.secret is not None
    assert settings.secret.get_secret_value() == "pepper"
    assert "pepper" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TUNERY_PORT", "65536"),
        ("TUNERY_PORT", "http"),
        ("TUNERY_LEASE_S", "0"),
        ("TUNERY_LOG_LEVEL", "loud"),
        ("TUNERY_RESULTS_CONTENT", "csv"),
        ("TUNERY_MAX_FILE_BYTES", "1"),
        ("TUNERY_ENGINE__ROWS", "0"),
        ("TUNERY_ENGINE__NO_SUCH_SETTING", "1"),
        ("TUNERY_TRAINING__PROOF_MEAN", "0"),
        ("TUNERY_WANDB__MODE", "dryrun"),
        ("TUNERY_WANDB__MODE", "online"),  # without a key
        ("TUNERY_WEBHOOKS__ALLOW_PRIVATE", "perhaps"),
        ("TUNERY_WEBHOOKS__RETRY_S", "0"),
        ("TUNERY_ENGINE__KIND", "triton"),
        ("TUNERY_VLLM__URL", "gpu:8000"),
        ("TUNERY_VLLM__URL", "http://gpu:8000/v1?x"),
        ("TUNERY_VLLM__ADAPTERS", "0"),
        ("TUNERY_VLLM__ARGUMENTS", "--dtype 'float32"),
    ],
)
def test_a_setting_out_of_range_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings()


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.engine.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.7", "http://192.0.2.7:80/v1"),
        ("0.0.0.0", "http://127.0.0.1:80/v1"),  # noqa: S104 - not bound
        ("::", "http://127.0.0.1:80/v1"),
        ("::1", "http://[::1]:80/v1"),
        ("tunes.example", "http://tunes.example:80/v1"),
    ],
)
def test_the_base_url_can_be_asked_from_this_machine(host: str, expected: str) -> None:
    assert Settings(host=host, port=80).base_url == expected


def test_paths_are_absolute_and_know_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    settings = Settings(data=Path("sub/../data"), models=Path("~/models"))
    assert settings.data_path == tmp_path.resolve() / "data"
    assert settings.models_path == (tmp_path / "home/models").resolve()
    assert settings.database == f"sqlite:///{tmp_path.resolve()}/data/tunery.db"


@pytest.mark.parametrize(
    ("url", "sqlite"),
    [
        ("sqlite:////srv/tunery.db", True),
        ("sqlite+pysqlite:////srv/tunery.db", True),
        ("postgresql+psycopg://u:p@db.example/tunery", False),
    ],
)
def test_another_database_can_be_named(url: str, sqlite: bool) -> None:
    settings = Settings(database_url=url)
    assert settings.database == url
    assert settings.is_sqlite() is sqlite


def test_reports_go_nowhere_unless_a_key_says_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path)
    assert settings.wandb.mode == "offline"
    assert settings.wandb_path == tmp_path.resolve() / "wandb"
    monkeypatch.setenv("TUNERY_WANDB__MODE", "online")
    monkeypatch.setenv("TUNERY_WANDB__API_KEY", "pepper")
    monkeypatch.setenv("TUNERY_WANDB__FOLDER", str(tmp_path / "runs"))
    settings = Settings()
    assert (settings.wandb.mode, settings.wandb_path) == ("online", tmp_path.resolve() / "runs")
    assert "pepper" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_vllm_is_started_unless_a_url_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings(data=tmp_path).vllm_adapter_path == tmp_path.resolve() / "vllm-adapters"
    monkeypatch.setenv("TUNERY_VLLM__URL", "http://gpu:8000")
    assert Settings().starts_engine()  # the embedded engine is the one that answers
    monkeypatch.setenv("TUNERY_ENGINE__KIND", "vllm")
    assert not Settings().starts_engine()
    monkeypatch.delenv("TUNERY_VLLM__URL")
    monkeypatch.setenv("TUNERY_VLLM__API_KEY", "pepper")
    monkeypatch.setenv("TUNERY_VLLM__ARGUMENTS", "--dtype float32")
    monkeypatch.setenv("TUNERY_VLLM__ADAPTER_FOLDER", str(tmp_path / "shared"))
    settings = Settings()
    assert settings.starts_engine()
    assert settings.vllm.arguments == "--dtype float32"
    assert settings.vllm_adapter_path == tmp_path.resolve() / "shared"
    assert "pepper" not in repr(settings) + str(settings) + settings.model_dump_json()

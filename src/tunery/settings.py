"""Every setting in one frozen tree, and the only reader of the environment.

Names in the environment start with TUNERY_ and nest with two underscores: TUNERY_PORT,
TUNERY_ENGINE__THREADS.
"""

import shlex
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_BASE = "smollm2-135m-instruct"


class EngineSettings(BaseModel):
    """What answers. Sizes are bounds: what does not fit waits, or is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["embedded", "vllm"] = Field(
        "embedded", description="vllm answers through a vLLM server, for machines with a GPU"
    )
    host: str = Field("127.0.0.1", description="address the engine listens on")
    port: int = Field(
        0, ge=0, le=65535, description="port of the default base's engine; 0 takes a free one"
    )
    max_bytes: int = Field(
        0,
        ge=0,
        description="memory of the engines of all bases together; 0 is half of the machine's",
    )
    start_s: float = Field(
        60.0, gt=0, le=600, description="seconds that a request waits for its base's engine"
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="compute threads; 0 takes every core, and half of them beside a training run",
    )
    rows: int = Field(32, ge=1, le=256, description="answers made at the same time")
    context_tokens: int = Field(8192, ge=64, description="longest prompt and answer together")
    adapters: int = Field(128, ge=1, le=1024, description="tuned models in memory at a time")
    adapter_bytes: int = Field(2**30, ge=2**20, description="memory of all of them together")
    max_rank: int = Field(32, ge=1, le=256, description="highest adapter rank accepted")
    native: Literal["auto", "off"] = Field(
        "auto", description="auto compiles faster operations where a compiler is found"
    )
    eight_bit: bool = Field(
        True, description="native products in eight bits, if those stay close to bfloat16"
    )
    queue: int = Field(256, ge=1, description="waiting requests before 503 is answered")
    cache_bytes: int = Field(
        2 * 2**30, ge=2**20, description="memory of all texts' keys and values together"
    )
    prefill_tokens: int = Field(
        512, ge=16, description="prompt tokens in a step that makes no token of an answer"
    )
    step_ms: float = Field(
        45,
        gt=0,
        le=10_000,
        description="one that does takes as many as fit into this time, or into 1.5 times that of"
        " its answers alone, or 6 times the least step's; at least 16",
    )


class VllmSettings(BaseModel):
    """The vLLM server behind engine.kind=vllm: one that runs at a URL, or one that is started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#]+(/[^?#]*)?$",
        description="where a vLLM of yours runs; default: `tunery engine` starts one",
    )
    api_key: SecretStr | None = Field(None, description="the --api-key that yours was started with")
    model: str | None = Field(
        None, description="what yours calls the base; default: its name, `@`, 16 digits of digest"
    )
    adapter_folder: Path | None = Field(
        None,
        description="where adapters are put for vLLM to read, under the same path on its machine;"
        " default: data/vllm-adapters",
    )
    adapters: int = Field(64, ge=1, le=4096, description="adapters kept there and known to vLLM")
    requests: int = Field(
        256, ge=1, le=4096, description="answers asked for at a time, by each process, before 503"
    )
    command: str = Field("vllm", description="the program that is started, maybe by its path")
    arguments: str = Field(
        "", description="more arguments for it, as a shell reads them: `--dtype float16`"
    )

    @model_validator(mode="after")
    def _can_be_split(self) -> Self:
        shlex.split(self.arguments)  # raises ValueError for a quote that is not closed
        return self


class TrainingSettings(BaseModel):
    """Training runs on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where runs compute: auto takes a GPU where torch finds one"
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="compute threads; 0 takes every core, and half of them beside answers",
    )
    nice: int = Field(
        0, ge=0, le=19, description="niceness of a run: each step gives a tenth more to serving"
    )
    native: Literal["auto", "off"] = Field(
        "auto",
        description="compile native operations where that can be done, or compute in torch alone",
    )
    snapshot_s: float = Field(60.0, gt=0, description="seconds between resume points")
    token_cache_bytes: int = Field(
        16 * 2**30,
        ge=2**20,
        description="disk, in data/tokens, for the tokens of jobs' files while they train",
    )
    proof_sequences: int = Field(16, ge=1, le=256, description="held-out texts of the proof")
    proof_mean: float = Field(0.12, gt=0, description="mean log-probability difference allowed")
    proof_max: float = Field(1.5, gt=0, description="largest log-probability difference allowed")


class WandbSettings(BaseModel):
    """Reports to Weights & Biases, for jobs whose owner asks for them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["offline", "online", "disabled"] = Field(
        "offline", description="offline writes folders for `wandb sync`; disabled refuses jobs"
    )
    api_key: SecretStr | None = Field(None, description="the account that online reports go to")
    base_url: str | None = Field(None, description="a W&B server of your own; default: wandb's")
    folder: Path | None = Field(None, description="where runs are written; default: data/wandb")

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        if self.mode == "online" and self.api_key is None:
            raise ValueError("mode online needs api_key; set it, or choose offline")
        return self


class WebhookSettings(BaseModel):
    """Events sent to receivers that projects name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_private: bool = Field(
        False, description="receivers on plain HTTP, loopback and private networks are allowed"
    )
    retry_s: float = Field(
        5.0, gt=0, le=3600, description="seconds before the first retry; later ones wait longer"
    )


class SourceKeys(BaseSettings):
    """The user's own keys at OpenAI, under the names that OpenAI's clients read them from."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    openai_api_key: SecretStr | None = None
    openai_admin_key: SecretStr | None = None


class Settings(BaseSettings):
    """The service's settings. Defaults run everything on one machine, on loopback."""

    model_config = SettingsConfigDict(
        frozen=True, env_prefix="TUNERY_", env_nested_delimiter="__", extra="ignore"
    )

    data: Path = Field(Path("tunery-data"), description="folder for database, files and keys")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL, e.g. postgresql+psycopg://...; default SQLite in data"
    )
    models: Path = Field(
        Path("~/.cache/tunery/models"), description="folder of the base models' catalogue"
    )
    base: str = Field(
        DEFAULT_BASE, description="the default base model, whose engine is started at once"
    )
    host: str = Field("127.0.0.1", description="address of the API")
    port: int = Field(8000, ge=0, le=65535, description="port of the API")
    secret: SecretStr | None = Field(
        None, description="key of the HMAC over API keys; default: data/secret, made once"
    )
    results_content: Literal["base64", "plain"] = Field(
        "base64", description="body of a result file's content: OpenAI gives base64"
    )
    max_file_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1024,
        description="largest file; one in parts that is not of lines may have 8 GB",
    )
    responses_kept_days: int = Field(
        30, ge=1, le=36_500, description="days that a stored response is kept"
    )
    lease_s: float = Field(15.0, gt=0.5, description="seconds until a silent worker's task moves")
    poll_s: float = Field(0.5, gt=0, description="seconds between looks at the queue")
    drain_s: int = Field(
        30, ge=0, le=3600, description="seconds that answers may take to end when a process stops"
    )
    sweep_s: float = Field(30.0, gt=0, description="seconds between sweeps of expired objects")
    batch_concurrency: int = Field(
        8, ge=1, le=256, description="answers made at the same time for batches, of engine.rows"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least that is logged"
    )
    engine: EngineSettings = EngineSettings()
    vllm: VllmSettings = VllmSettings()
    training: TrainingSettings = TrainingSettings()
    wandb: WandbSettings = WandbSettings()
    webhooks: WebhookSettings = WebhookSettings()

    @property
    def data_path(self) -> Path:
        """Return the data folder as an absolute path."""
        return self.data.expanduser().resolve()

    @property
    def token_cache_path(self) -> Path:
        """Return the folder of jobs' token caches as an absolute path."""
        return self.data_path / "tokens"

    @property
    def wandb_path(self) -> Path:
        """Return the folder of reported runs as an absolute path."""
        folder = self.wandb.folder
        return self.data_path / "wandb" if folder is None else folder.expanduser().resolve()

    @property
    def vllm_adapter_path(self) -> Path:
        """Return the folder of adapters for vLLM as an absolute path."""
        folder = self.vllm.adapter_folder
        return self.data_path / "vllm-adapters" if folder is None else folder.expanduser().resolve()

    @property
    def models_path(self) -> Path:
        """Return the models folder as an absolute path."""
        return self.models.expanduser().resolve()

    @property
    def database(self) -> str:
        """Return the database's URL."""
        return self.database_url or f"sqlite:///{self.data_path / 'tunery.db'}"

    @property
    def base_url(self) -> str:
        """Return what OPENAI_BASE_URL is to be on this machine."""
        host = self.host if self.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    def is_sqlite(self) -> bool:
        """Return whether the database is a SQLite file."""
        return urlsplit(self.database).scheme.startswith("sqlite")

    def starts_engine(self) -> bool:
        """Return whether the engine is a process of ours: a vLLM at a URL is the operator's."""
        return self.engine.kind == "embedded" or self.vllm.url is None

"""Two bases at once: an engine each, started when it is asked for, within a bound of bytes."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from support.fake_vllm import faked
from support.server import (
    BASE,
    CONTEXT,
    Process,
    Server,
    ask,
    chat_lines,
    descendants,
    make_catalogue,
    method,
    poll,
    tuned_model,
    upload,
)
from support.tiny import make_tiny_model
from tunery.domain.models import BaseModel
from tunery.inference.vllm.engine import served_name
from tunery.settings import EngineSettings
from tunery.storage.catalogue import Catalogue
from tunery.wiring.memory import engine_bytes


@pytest.fixture(scope="module")
def two(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder that knows two bases: `tiny`, and `other` with other weights."""
    folder = tmp_path_factory.mktemp("two")
    models = make_catalogue(folder, tiny_model)
    weights = make_tiny_model(folder / "other", seed=1)
    config = json.loads((weights / "config.json").read_text())
    config["max_position_embeddings"] = CONTEXT
    (weights / "config.json").write_text(json.dumps(config))
    Catalogue(models).add("other", weights, aliases=("gpt-other",), learning_rate=5e-3)
    return models


@pytest.fixture(scope="module")
def both(two: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    sizes = [engine_bytes(base, EngineSettings()) for base in Catalogue(two).all()]
    settings = {"TUNERY_ENGINE__MAX_BYTES": str(sum(sizes))}
    with Server(tmp_path_factory.mktemp("both"), two, **settings) as running:
        yield running


def fingerprint(client: OpenAI, model: str) -> str:
    """Return which weights answered."""
    made = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "ask 001"}], max_tokens=4, temperature=0
    )
    assert made.choices[0].finish_reason in ("stop", "length")
    return made.system_fingerprint or ""


def test_each_base_answers_from_its_own_process_and_a_job_names_any(both: Server) -> None:
    client = both.client().with_options(timeout=120)
    assert both.find("engine --model other") is None
    names = {model.id: model.model_dump()["tunery"]["base"] for model in client.models.list()}
    assert {"tiny": "tiny", BASE: "tiny", "other": "other", "gpt-other": "other"}.items() <= (
        names.items()
    )
    # The first request starts it and waits for it: the client tries once.
    assert fingerprint(client, "gpt-other").startswith(f"fp_{both.digest('other')[:10]}_base")
    assert both.find("engine --model other") is not None
    assert fingerprint(client, BASE).startswith(f"fp_{both.digest()[:10]}_base")
    assert ask(client, "other", max_tokens=40) != ask(client, "tiny", max_tokens=40)

    file = upload(client, chat_lines(12))
    job = client.fine_tuning.jobs.create(
        model="gpt-other", training_file=file.id, method=method(n_epochs=8, batch_size=2)
    )
    name = tuned_model(client, job.id)
    assert name.startswith("ft:gpt-other:")
    assert ask(client, name) == "yes"
    assert fingerprint(client, name).startswith(f"fp_{both.digest('other')[:10]}_")
    told = client.models.retrieve(name).model_dump()["tunery"]
    assert (told["base"], told["base_digest"]) == ("other", both.digest("other"))

    for base, model in (("other", name), ("tiny", BASE)):
        engine = both.child(f"engine --model {base}")
        engine.send(signal.SIGKILL)
        _wait_for_end(engine)
        fingerprint(client, model)  # waits for the next one
        assert both.child(f"engine --model {base}").pid != engine.pid
    assert ask(client, name) == "yes"
    listed = both.tunery("doctor").stdout
    assert "tiny answers; " in listed
    assert "other answers; " in listed


def test_an_engine_makes_room_only_once_it_makes_no_answer(
    two: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    catalogue = Catalogue(two)
    sizes = [engine_bytes(base, EngineSettings()) for base in catalogue.all()]
    # One engine fits; what is reckoned for the second one is more than what is left.
    settings = {"TUNERY_ENGINE__MAX_BYTES": str(max(sizes) + 1024), "TUNERY_ENGINE__START_S": "3"}
    with Server(tmp_path_factory.mktemp("narrow"), two, **settings) as narrow:
        client = narrow.client()
        stream = client.chat.completions.create(
            model=BASE,
            messages=[{"role": "user", "content": "ask 001"}],
            max_tokens=CONTEXT - 100,
            temperature=0,
            logit_bias={_end(catalogue.get("tiny")): -100},
            stream=True,
        )
        next(stream)
        first = narrow.child("engine")  # it may end as soon as the stream does
        with pytest.raises(openai.InternalServerError) as refused:
            fingerprint(client, "other")
        assert refused.value.status_code == 503
        assert refused.value.code == "engine_unavailable"
        assert int(refused.value.response.headers["retry-after"]) > 0
        reasons = [chunk.choices[0].finish_reason for chunk in stream]
        assert reasons[-1] == "length"

        _patiently(client, "other")
        _wait_for_end(first)
        assert narrow.http().get("/readyz").status_code == 200
        second = narrow.child("engine --model other")
        _patiently(client, BASE)
        _wait_for_end(second)


def test_with_vllm_the_default_base_is_the_only_one(two: Path, tmp_path: Path) -> None:
    base = Catalogue(two).get("tiny")
    assert base is not None
    with faked() as fake:
        fake.models = [served_name(base)]
        settings = {"TUNERY_ENGINE__KIND": "vllm", "TUNERY_VLLM__URL": fake.url}
        with Server(tmp_path, two, **settings) as server:
            client = server.client()
            assert {model.id for model in client.models.list()} >= {"tiny", BASE}
            assert not {model.id for model in client.models.list()} & {"other", "gpt-other"}
            with pytest.raises(openai.NotFoundError) as unknown:
                ask(client, "other")
            assert unknown.value.code == "model_not_found"
            assert server.process is not None
            started = [one.command for one in descendants(server.process.pid)]
            assert not any("tunery engine" in command for command in started)


def _wait_for_end(process: Process) -> None:
    poll(lambda: not process.lives, f"the end of {process.command}")


def _patiently(client: OpenAI, model: str) -> None:
    """Ask as the SDK does unless told otherwise: a 503 is tried again."""
    fingerprint(client.with_options(max_retries=20), model)


def _end(base: BaseModel | None) -> str:
    """Return the id of the token that ends an answer."""
    assert base is not None
    return str(json.loads((Path(base.path) / "config.json").read_text())["eos_token_id"])

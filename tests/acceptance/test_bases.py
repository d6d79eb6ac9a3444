"""Bases of other families than the default one's: added, tuned, killed in the middle, served.

One server has them all. What no family may be tuned for is refused when it is added, by name.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from transformers import AutoConfig, AutoModelForCausalLM

from support.families import make_family
from support.server import (
    Server,
    all_events,
    ask,
    chat_lines,
    environment,
    last_step,
    method,
    metric_steps,
    poll,
    tuned_model,
    tunery,
    upload,
)
from support.tiny import make_byte_tokenizer, write_tokenizer
from tunery.storage.catalogue import Catalogue

TUNED = ("qwen2", "qwen3", "gemma3")
EXAMPLES, EPOCHS = 16, 20
STEPS = EXAMPLES * EPOCHS


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder that the families' tiny checkpoints were added to."""
    folder = tmp_path_factory.mktemp("families")
    env = environment(folder / "models")
    weights = [make_family(folder / family, family) for family in TUNED]

    def add(family: str, weights: Path) -> None:
        done = tunery("models", "add", family, weights, "--learning-rate", "5e-3", env=env)
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, TUNED, weights))
    return folder / "models"


@pytest.fixture(scope="module")
def families(added: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), added, base=TUNED[0]) as running:
        yield running


@pytest.fixture(scope="module")
def client(families: Server) -> OpenAI:
    return families.client().with_options(timeout=120)  # the first question starts an engine


@pytest.fixture(scope="module")
def training_file(client: OpenAI) -> str:
    return upload(client, chat_lines(EXAMPLES)).id


@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=pytest.mark.slow) for one in TUNED[:2]] + [TUNED[2]]
)
def test_a_run_that_was_killed_goes_on_and_its_model_is_published_and_answers(
    families: Server, client: OpenAI, training_file: str, family: str
) -> None:
    job = client.fine_tuning.jobs.create(
        model=family, training_file=training_file, method=method(n_epochs=EPOCHS, batch_size=1)
    )
    with ThreadPoolExecutor(1) as pool:
        untuned = pool.submit(ask, client, family)  # starts its engine beside the run
        poll(lambda: last_step(client, job.id) >= 2 * EXAMPLES, "the second epoch's end", 180)
        worker, child = families.child("work"), families.child("child train")
        worker.send(signal.SIGKILL)
        poll(lambda: not child.lives, "the end of the training process with its worker's")
    name = tuned_model(client, job.id)
    assert name.startswith(f"ft:{family}:")
    story = [event.message for event in all_events(client, job.id)]
    (resumed,) = [message for message in story if "was interrupted" in message]
    assert EXAMPLES <= int(resumed.rpartition(" ")[2]) < STEPS
    assert metric_steps(client, job.id) == list(range(1, STEPS + 1))
    assert any(message.startswith("Publishing check passed: ") for message in story)
    assert ask(client, name) == "yes"
    assert untuned.result() != "yes"


@pytest.mark.parametrize(
    ("kind", "numbers", "why"),
    [
        (
            "gpt2",
            {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
            "GPT2LMHeadModel cannot be tuned here: its layer transformer.h.0.attn.c_attn is a"
            " Conv1D, not a Linear that LoRA can be put on.",
        ),
        (
            "mixtral",
            {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
            | {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4},
            "MixtralForCausalLM cannot be tuned here: its layer model.layers.0.mlp.gate is a"
            " MixtralTopKRouter, not a Linear that LoRA can be put on.",
        ),
    ],
)
def test_a_base_whose_layers_cannot_be_tuned_is_refused_by_name(
    tmp_path: Path, kind: str, numbers: dict[str, Any], why: str
) -> None:
    tokenizer = make_byte_tokenizer()
    config = AutoConfig.for_model(kind, vocab_size=tokenizer.get_vocab_size(), **numbers)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / kind)
    write_tokenizer(tmp_path / kind, tokenizer)
    env = environment(tmp_path / "models")
    done = tunery("models", "add", kind, tmp_path / kind, env=env)
    assert done.returncode == 1
    assert done.stderr == f"tunery: {why}\n"
    assert Catalogue(tmp_path / "models").all() == []

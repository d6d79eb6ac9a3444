"""The default base learns a manner from pairs of replies: products and phrasings it never saw."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from openai import OpenAI

from nightly.conftest import Figures
from polite_replies import Preference, is_polite, make, preference_line
from support.echo import answer_log_probabilities
from support.server import BASE, Server, all_events, ask, dpo_method, tuned_model, upload
from tunery.datasets.rendering import ChatRenderer
from tunery.settings import DEFAULT_BASE, Settings

TRAINED_ON, HELD_OUT, PROVEN_ON = 128, 40, 16
NEEDED = 0.9
ANSWER_TOKENS = 40
REAL = {
    "TUNERY_ENGINE__THREADS": "0",
    "TUNERY_ENGINE__NATIVE": "auto",  # as it is served
    "TUNERY_TRAINING__THREADS": "0",
    "TUNERY_TRAINING__SNAPSHOT_S": "60",
    "TUNERY_LEASE_S": "15",
}


@pytest.fixture(scope="module")
def models() -> Path:
    """Return the folder of real base models."""
    return Settings(models=Path(os.environ.get("TUNERY_MODELS", Settings().models))).models_path


@pytest.fixture(scope="module")
def real(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    entry = models / DEFAULT_BASE / "tunery.json"
    assert entry.is_file(), f"{entry} is missing; run `tunery models pull`"
    with Server(tmp_path_factory.mktemp("real"), models, base=DEFAULT_BASE, **REAL) as running:
        yield running


def _lines(preferences: Sequence[Preference]) -> bytes:
    return "\n".join(json.dumps(preference_line(one)) for one in preferences).encode()


def _mean_log_probability(
    client: OpenAI, renderer: ChatRenderer, model: str, question: str, reply: str
) -> float:
    """Return the mean over a reply's tokens, its end among them, in nats."""
    values = answer_log_probabilities(client, renderer, model, question, reply)
    return sum(values) / len(values)


def _preferring(
    client: OpenAI, renderer: ChatRenderer, model: str, held_out: Sequence[Preference]
) -> float:
    """Return the share of questions to which the polite reply is the likelier, token by token."""
    won = sum(
        _mean_log_probability(client, renderer, model, one.question, one.polite)
        > _mean_log_probability(client, renderer, model, one.question, one.curt)
        for one in held_out
    )
    return won / len(held_out)


def _polite(client: OpenAI, model: str, held_out: Sequence[Preference]) -> float:
    """Return the share of questions that are answered politely."""
    replies = [ask(client, model, one.question, max_tokens=ANSWER_TOKENS) for one in held_out]
    return sum(map(is_polite, replies)) / len(replies)


def test_the_default_base_learns_to_be_polite_from_pairs(
    real: Server, models: Path, figures: Figures
) -> None:
    client = real.client().with_options(timeout=600)
    renderer = ChatRenderer.load(models / DEFAULT_BASE)
    train, held_out = (
        make("train", TRAINED_ON, figures.seed),
        make("test", HELD_OUT, figures.seed),
    )
    assert not {one.question for one in train} & {one.question for one in held_out}
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=upload(client, _lines(train)).id,
        validation_file=upload(client, _lines(held_out[:PROVEN_ON])).id,
        seed=figures.seed % 2**31,
        method=dpo_method(),  # with every number left to the service
    )
    name = tuned_model(client, job.id, seconds=1800)
    events = all_events(client, job.id)
    (proof,) = [e.message for e in events if e.message.startswith("Publishing check passed")]
    told = [e.data for e in events if e.type == "metrics"]
    shares = {}
    for who, model in (("base", BASE), ("tuned", name)):
        shares[f"polite likelier, {who}"] = _preferring(client, renderer, model, held_out)
        shares[f"answered politely, {who}"] = _polite(client, model, held_out)
    last = told[-1]
    assert isinstance(last, dict)
    figures.keep(
        "preferences",
        {key: f"{share:.0%} of {HELD_OUT}" for key, share in shares.items()}
        | {"steps": last["total_steps"], "last loss": f"{last['train_loss']:.4f}"}
        | {"last held-out margin": f"{last['full_valid_reward_margin']:.2f}"}
        | {"proof": proof.partition(": ")[2]},
    )
    assert shares["polite likelier, tuned"] >= NEEDED
    assert shares["answered politely, tuned"] >= NEEDED
    assert shares["answered politely, base"] < 0.5

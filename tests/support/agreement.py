"""What an engine says, alone and in mixed batches, next to transformers + PEFT in float32.

Knows an engine by its port alone: whichever it is, the same can be asked of it.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from support.networks import log_probabilities, plain_model
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.jobs import Adapter
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.engine import Engine, Generation, TokenLogprob
from tunery.domain.ports.training import ProofRequest
from tunery.services.publishing import Proof, compare
from tunery.training.reference import PeftReference

Ids = tuple[int, ...]
Scores = list[float]


@dataclass(frozen=True, slots=True)
class Text:
    """A text to score, and under which adapter; None is the base."""

    ids: Ids
    adapter: Adapter | None


@dataclass(frozen=True, slots=True)
class Made:
    """An answer, and how likely its tokens were."""

    text: str
    tokens: tuple[TokenLogprob, ...]


async def score(engine: Engine, digest: str, texts: Sequence[Text], at_once: int) -> list[Scores]:
    """Return the texts' log-probabilities, so many texts being computed at the same time."""
    places = asyncio.Semaphore(at_once)

    async def one(text: Text) -> Scores:
        async with places:
            return (await engine.score([text.ids], digest, text.adapter))[0]

    return list(await asyncio.gather(*map(one, texts)))


async def generate(engine: Engine, wanted: Sequence[Generation], at_once: int) -> list[Made]:
    """Return the answers, so many being made at the same time."""
    places = asyncio.Semaphore(at_once)

    async def one(generation: Generation) -> Made:
        async with places, aclosing(engine.generate(generation)) as deltas:
            pieces = [delta async for delta in deltas]
        tokens = tuple(token for delta in pieces for token in delta.logprobs)
        return Made("".join(delta.text for delta in pieces), tokens)

    return list(await asyncio.gather(*map(one, wanted)))


def references(folder: Path, blobs: BlobStore, texts: Sequence[Text]) -> list[Scores]:
    """Return each text's log-probabilities by transformers + PEFT in float32."""
    found: dict[Text, Scores] = {}
    for adapter in {text.adapter for text in texts}:
        own = [text for text in dict.fromkeys(texts) if text.adapter == adapter]
        if adapter is None:
            model = plain_model(folder)
            scores = [log_probabilities(model, text.ids) for text in own]
        else:
            request = ProofRequest("", "", (adapter,), tuple(text.ids for text in own))
            scores = PeftReference(blobs, folder, os.cpu_count() or 1).score(request)[0]
        found.update(zip(own, scores, strict=True))
    return [found[text] for text in texts]


def made_proof(
    folder: Path,
    blobs: BlobStore,
    tokenizer: TextTokenizer,
    wanted: Sequence[Generation],
    made: Sequence[Made],
) -> Proof:
    """Hold the log-probabilities that came with answers against the reference's of their tokens."""
    spelled = {
        (tokenizer.token_id_text(number), tokenizer.token_id_bytes(number)): number
        for number in range(tokenizer.vocabulary)
    }
    answers = [tuple(spelled[one.token, one.token_bytes] for one in m.tokens) for m in made]
    texts = [
        Text((*generation.prompt_ids, *ids), generation.adapter)
        for generation, ids in zip(wanted, answers, strict=True)
    ]
    expected = [
        scores[len(scores) - len(ids) :]
        for scores, ids in zip(references(folder, blobs, texts), answers, strict=True)
    ]
    return compare([[one.logprob for one in m.tokens] for m in made], expected)


def seeded(generations: Sequence[Generation]) -> list[Generation]:
    """Return the same answers to be sampled, each from a seed of its own."""
    return [replace(one, temperature=1.0, seed=n) for n, one in enumerate(generations)]


def equal_texts(one: Sequence[Made], other: Sequence[Made]) -> int:
    """Return how many answers are the same text."""
    return sum(a.text == b.text for a, b in zip(one, other, strict=True))

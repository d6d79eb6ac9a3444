"""What an engine says, alone and in mixed batches, next to transformers + PEFT in float32.

Knows an engine by its port alone: whichever it is, the same can be asked of it.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from support.networks import log_probabilities, plain_model
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.jobs import Adapter
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.engine import Engine, Generation, TokenLogprob
from tunery.domain.ports.training import ProofRequest
from tunery.model.adapter_file import CONFIG, WEIGHTS
from tunery.services.publishing import Proof, compare
from tunery.training.reference import PeftReference

Ids = tuple[int, ...]
Scores = list[float]
_PADDED_TOKENS = 2048  # of a batch of references: 400 MB of logits at 49,152 tokens of vocabulary


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


class References:
    """transformers + PEFT in float32 over one base: what every text's log-probabilities should be.

    Every core computes, texts of about one length together, and each text once; `apart_alone`
    holds that against one text at a time.
    """

    def __init__(self, folder: Path, blobs: BlobStore) -> None:
        self._folder = folder
        self._blobs = blobs
        self._found: dict[Text, Scores] = {}

    def of(self, texts: Sequence[Text]) -> list[Scores]:
        """Return each text's log-probabilities."""
        new = {text for text in texts if text not in self._found}
        with _every_core():
            for adapter in {text.adapter for text in new}:
                model = plain_model(self._folder)
                if adapter is not None:
                    model = _with_adapter(model, self._blobs, adapter)
                own = {text for text in new if text.adapter == adapter}
                for batch in _batches(sorted(own, key=lambda text: len(text.ids))):
                    self._found.update(zip(batch, _score_batch(model, batch), strict=True))
        return [self._found[text] for text in texts]

    def apart_alone(self, texts: Sequence[Text]) -> float:
        """Return how far, in nats at most, they are from the same texts' one at a time.

        With an adapter, one at a time is as the publishing check does it.
        """
        alone: dict[Text, Scores] = {}
        with _every_core():
            for adapter in {text.adapter for text in texts}:
                own = [text for text in texts if text.adapter == adapter]
                if adapter is None:
                    model = plain_model(self._folder)
                    scores = [log_probabilities(model, text.ids) for text in own]
                else:
                    request = ProofRequest("", "", (adapter,), tuple(text.ids for text in own))
                    scores = PeftReference(self._blobs, self._folder, 0).score(request)[0]
                alone.update(zip(own, scores, strict=True))
        return compare(self.of(texts), [alone[text] for text in texts]).maximum


@contextmanager
def _every_core() -> Iterator[None]:
    """Have torch compute on all of them: the tests' own number is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_adapter(model: Any, blobs: BlobStore, adapter: Adapter) -> Any:
    """Put the adapter's files before the model as PEFT itself loads them."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in (WEIGHTS, CONFIG):
            (Path(scratch) / name).write_bytes(blobs.read(f"{adapter.key}/{name}"))
        return PeftModel.from_pretrained(model, scratch).eval()


def _batches(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """Cut texts, the shortest first, so that none of them is padded over `_PADDED_TOKENS`."""
    first = 0
    for end in range(1, len(texts) + 1):
        if end == len(texts) or (end + 1 - first) * len(texts[end].ids) > _PADDED_TOKENS:
            yield texts[first:end]
            first = end


def _score_batch(model: Any, texts: Sequence[Text]) -> list[Scores]:
    """Return the texts' log-probabilities; what is to the right of a text is masked padding."""
    lengths = torch.tensor([len(text.ids) for text in texts])
    ids = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text.ids)] = torch.tensor(text.ids)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1]
        chosen = logits.gather(2, ids[:, 1:, None])[..., 0]
        scores = chosen - torch.logsumexp(logits, -1)
    return [row[: len(text.ids) - 1].tolist() for row, text in zip(scores, texts, strict=True)]


def made_proof(
    references: References,
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
        for scores, ids in zip(references.of(texts), answers, strict=True)
    ]
    return compare([[one.logprob for one in m.tokens] for m in made], expected)


def seeded(generations: Sequence[Generation]) -> list[Generation]:
    """Return the same answers to be sampled, each from a seed of its own."""
    return [replace(one, temperature=1.0, seed=n) for n, one in enumerate(generations)]


def equal_texts(one: Sequence[Made], other: Sequence[Made]) -> int:
    """Return how many answers are the same text."""
    return sum(a.text == b.text for a, b in zip(one, other, strict=True))

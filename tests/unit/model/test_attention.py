"""Packed and cached attention against transformers' own forward pass."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.networks import (
    PEFT_WARNING,
    assert_gradients_alike,
    logits_of,
    merged_model,
    peft_model,
    plain_model,
    random_adapter,
    tokens,
)
from tunery.engine.adapters import AdapterStack
from tunery.model.base import BaseNetwork, load_base
from tunery.model.cached import CachedLayout, SlotCache
from tunery.model.packed import PackedLayout
from tunery.training.adapter import LearnedAdapter


def _packed_hidden(network: BaseNetwork, sequences: list[list[int]], filler: int) -> list[Tensor]:
    layout = PackedLayout([len(ids) for ids in sequences], network.dtype)
    row = [token for ids in sequences for token in ids] + [filler] * layout.padding
    hidden = network.hidden(torch.tensor(row), layout)
    assert hidden.shape[0] == len(row)
    assert len(row) % 32 == 0
    parts: list[Tensor] = []
    start = 0
    for ids in sequences:
        parts.append(hidden[start : start + len(ids)])
        start += len(ids)
    return parts


@pytest.mark.parametrize("filler", [0, 200])
@pytest.mark.parametrize("lengths", [[1], [32], [7, 3, 12], [1, 40, 1], [31, 70, 2], [9, 800]])
def test_packed_sequences_get_the_logits_that_each_has_alone(
    any_base: Path, lengths: list[int], filler: int
) -> None:
    sequences = [tokens(length, seed) for seed, length in enumerate(lengths)]
    network, reference = load_base(any_base, torch.float32), plain_model(any_base)
    with torch.no_grad():
        parts = _packed_hidden(network, sequences, filler)
        for ids, hidden in zip(sequences, parts, strict=True):
            torch.testing.assert_close(
                network.head(hidden), logits_of(reference, ids), rtol=1e-4, atol=2e-5
            )


@pytest.mark.filterwarnings(PEFT_WARNING)
@pytest.mark.parametrize("lengths", [(9, 2, 17, 1), (5, 800)])
def test_packed_gradients_of_a_and_b_equal_those_of_peft_under_plain_autograd(
    any_base: Path, lengths: tuple[int, ...]
) -> None:
    weights = random_adapter(any_base, 1)
    sequences = [tokens(length, length) for length in lengths]
    network = load_base(any_base, torch.float32)
    learned = LearnedAdapter.over(network, seed=0, start_from=weights)
    reference = peft_model(any_base, weights)
    generator = torch.Generator().manual_seed(5)
    ours = theirs = torch.zeros(())
    for ids, hidden in zip(sequences, _packed_hidden(network, sequences, 0), strict=True):
        logits = network.head(hidden)
        weighting = torch.randn(logits.shape, generator=generator)
        ours = ours + (logits * weighting).sum()
        theirs = theirs + (reference(torch.tensor([ids])).logits[0] * weighting).sum()
    ours.backward()  # type: ignore[no-untyped-call]
    theirs.backward()  # type: ignore[no-untyped-call]
    assert_gradients_alike(learned, reference, rtol=1e-3, share=1e-4, least=0.01)


@pytest.mark.parametrize("shared", [0, 2])
def test_packed_attention_has_the_gradient_of_finite_differences(shared: int) -> None:
    # Six tokens in all, whether three sequences have two in common or not.
    lengths = [3, 1, 2] if not shared else [4, 3, 3]
    layout = PackedLayout(lengths, torch.float64, shared)
    generator = torch.Generator().manual_seed(0)

    def heads(count: int) -> Tensor:
        full = torch.zeros(count, 32, 2, dtype=torch.float64)  # 6 tokens and 26 of padding
        full[:, :6] = torch.randn(count, 6, 2, generator=generator, dtype=torch.float64)
        return full.requires_grad_()

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return layout.attend(0, query, key, value, 0.7)[:6]

    assert torch.autograd.gradcheck(attend, (heads(4), heads(2), heads(2)))


class _Cached:
    """Rows of known tokens that go through a cache step by step; keeps each token's logits."""

    def __init__(
        self, network: BaseNetwork, stack: AdapterStack, context: int, stale: float, padding: int
    ) -> None:
        self.network, self.stack, self.padding = network, stack, padding
        self.cache = SlotCache(
            network.layers, 5, network.key_value_heads, context, network.head_size, network.dtype
        )
        for tensor in (*self.cache.keys, *self.cache.values):
            tensor.fill_(stale)
        self.rows: dict[int, tuple[list[int], int]] = {}
        self.seen: dict[int, list[Tensor]] = {}

    def add(self, slot: int, ids: list[int], place: int) -> None:
        self.rows[slot], self.seen[slot] = (ids, place), []

    def step(self, decoding: list[int], pieces: list[tuple[int, int]]) -> None:
        ids: list[int] = []
        positions: list[int] = []
        places: list[int] = []
        owners: list[int] = []
        for slot, count in [*((slot, 1) for slot in decoding), *pieces]:
            start = len(self.seen[slot])
            ids += self.rows[slot][0][start : start + count]
            positions += range(start, start + count)
            places += [self.rows[slot][1]] * count
            owners += [slot] * count
        layout = CachedLayout(self.cache, decoding, pieces, positions, self.padding)
        self.stack.rows.select(places + [-1] * self.padding)
        with torch.inference_mode():
            hidden = self.network.hidden(torch.tensor(ids + [0] * self.padding), layout)
            logits = self.network.head(hidden)
        for slot, row in zip(owners, logits, strict=False):
            self.seen[slot].append(row)


@pytest.mark.parametrize(("stale", "padding"), [(0.0, 0), (9.0, 3)])
def test_pieces_then_decoding_in_mixed_slots_and_adapters_equals_each_row_whole_and_alone(
    any_base: Path, stale: float, padding: int
) -> None:
    adapters = [random_adapter(any_base, seed) for seed in (1, 2)]
    network = load_base(any_base, torch.float32)
    stack = AdapterStack(network, 2, 4, 2**30)
    places = []
    for name, weights in zip("ab", adapters, strict=True):
        stack.load(name, weights)
        place = stack.acquire(name)
        assert place is not None
        places.append(place)
    run = _Cached(network, stack, 512, stale, padding)
    run.add(0, tokens(40, 0), -1)
    run.add(1, tokens(30, 1), places[0])
    run.add(2, tokens(180, 2), places[1])
    run.add(4, tokens(20, 3), places[0])
    run.step([], [(1, 11), (0, 5)])
    run.step([1], [(0, 1), (2, 60), (4, 7)])
    run.step([0, 1], [(2, 90), (4, 1)])
    for _ in range(10):
        run.step([0, 1, 2, 4], [])
    run.step([0], [])
    run.step([0, 4], [(2, 20)])
    run.step([], [(0, 21), (1, 7)])
    assert {slot: len(rows) for slot, rows in run.seen.items()} == {0: 40, 1: 30, 2: 180, 4: 19}
    for slot, weights_or_none in ((0, None), (1, adapters[0]), (2, adapters[1]), (4, adapters[0])):
        ids = run.rows[slot][0][: len(run.seen[slot])]
        wanted = logits_of(merged_model(any_base, weights_or_none), ids)
        torch.testing.assert_close(torch.stack(run.seen[slot]), wanted, rtol=1e-3, atol=1e-4)


def test_a_context_that_is_no_multiple_of_the_window_can_be_filled_to_its_end(
    any_base: Path,
) -> None:
    network = load_base(any_base, torch.float32)
    run = _Cached(network, AdapterStack(network, 1, 4, 2**30), 70, 0.0, 0)
    run.add(3, tokens(70, 0), -1)
    run.step([], [(3, 60)])
    for _ in range(10):
        run.step([3], [])
    wanted = logits_of(plain_model(any_base), run.rows[3][0])
    torch.testing.assert_close(torch.stack(run.seen[3]), wanted, rtol=1e-3, atol=1e-4)

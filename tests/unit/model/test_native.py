"""The native operations against the same decoder in torch, and against transformers in float32."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.networks import logits_of, merged_model, random_adapter, tokens
from tunery.engine.adapters import AdapterStack
from tunery.model import native
from tunery.model.adapter_file import AdapterWeights
from tunery.model.base import BaseNetwork, load_base
from tunery.model.cached import CachedLayout, SlotCache
from tunery.model.lora import Packed, packed

FOLDER = Path("~/.cache/tunery/native").expanduser()
ROWS, CONTEXT, RANK = 6, 160, 40
# Lengths of the prompts in the slots 0..5, and the adapter of each: base, mixed, the same twice.
LENGTHS = [40, 70, 33, 5, 64, 90]
PLACES = [-1, 0, 1, 1, 0, -1]


@pytest.fixture(scope="module")
def operations() -> None:
    """Load the native operations; skip where this processor cannot run them."""
    if missing := native.missing_features():
        pytest.skip(f"this processor has no {', '.join(missing)}")
    native.load(native.built(FOLDER) or native.build(FOLDER))


def adapter_of(folder: Path, seed: int, rank: int) -> AdapterWeights:
    """Return an adapter that changes the weights by as much at any rank; at 4, numbers of 0.08."""
    return random_adapter(folder, seed, rank, 1.5 * rank, 0.08 * (4 / rank) ** 0.25)


class Decoding:
    """Six prompts in six slots: computed in two pieces each, then two tokens one by one."""

    def __init__(
        self, folder: Path, *, eight_bits: bool | None = None, ranks: tuple[int, int] = (4, 4)
    ) -> None:
        self.network: BaseNetwork = load_base(folder, torch.bfloat16)
        self.head: Callable[[Tensor], Tensor] = self.network.head
        self.stack = AdapterStack(self.network, 2, RANK, 1 << 30)
        for name, seed, rank in (("a", 1, ranks[0]), ("b", 2, ranks[1])):
            self.stack.load(name, adapter_of(folder, seed, rank))
        self.places = {0: self.stack.acquire("a"), 1: self.stack.acquire("b"), -1: -1}
        if eight_bits is not None:
            decoder = self.network.decoder.fused
            assert decoder is not None
            assert decoder.takes_native()
            decoder.use_native(eight_bits=eight_bits)
            layer = packed(self.head.weight, self.head.bias)
            assert isinstance(layer, Packed)
            self.head = torch.classes.tunery.Head(*layer.tensors(), eight_bits).product
            if eight_bits:
                decoder.keep_eight_bits_only()
        heads, size = self.network.key_value_heads, self.network.head_size
        self.cache = SlotCache(self.network.layers, ROWS, heads, CONTEXT, size, torch.bfloat16)

    def step(
        self,
        ids: Sequence[int],
        decoding: Sequence[int],
        pieces: Sequence[tuple[int, int]],
        positions: Sequence[int],
    ) -> Tensor:
        slots = [*decoding, *(slot for slot, n in pieces for _ in range(n))]
        self.stack.rows.select([self.places[PLACES[slot]] or 0 for slot in slots])
        layout = CachedLayout(self.cache, decoding, pieces, positions, 0)
        with torch.inference_mode():
            hidden = self.network.hidden(torch.tensor(ids), layout)
            return torch.log_softmax(self.head(hidden).float(), -1)

    def run(self) -> list[Tensor]:
        """Return each slot's log-probabilities, [tokens, vocabulary]."""
        texts = [tokens(length + 2, seed) for seed, length in enumerate(LENGTHS)]
        found: list[list[Tensor]] = [[] for _ in texts]
        for part in range(2):
            ids: list[int] = []
            positions: list[int] = []
            pieces: list[tuple[int, int]] = []
            for slot, length in enumerate(LENGTHS):
                start, end = (0, length // 2) if part == 0 else (length // 2, length)
                ids += texts[slot][start:end]
                positions += range(start, end)
                pieces.append((slot, end - start))
            parts = torch.split(self.step(ids, [], pieces, positions), [n for _, n in pieces])
            for slot, rows in enumerate(parts):
                found[slot].append(rows)
        for number in range(2):
            last = [texts[slot][length + number] for slot, length in enumerate(LENGTHS)]
            rows = self.step(last, range(ROWS), [], [length + number for length in LENGTHS])
            for slot in range(ROWS):
                found[slot].append(rows[slot : slot + 1])
        return [torch.cat(rows) for rows in found]


@pytest.mark.parametrize(
    ("eight_bits", "ranks", "mean", "most"),
    # A rounding to bfloat16 is 2^-9 of a number, logits are a few units here; a number of eight
    # bits is off by 2^-8 of its group's largest, three times as much as one of bfloat16.
    [
        (None, (4, 4), 0.01, 0.12),
        (False, (4, 4), 0.01, 0.12),
        (True, (4, 4), 0.03, 0.3),
        (True, (1, 40), 0.03, 0.3),  # a lonely rank, and more of them than share a scale
        (True, (17, 6), 0.03, 0.3),
    ],
)
@pytest.mark.usefixtures("operations")
def test_every_row_is_computed_as_its_own_merged_model_would(
    tiny_model: Path, eight_bits: bool | None, ranks: tuple[int, int], mean: float, most: float
) -> None:
    found = Decoding(tiny_model, eight_bits=eight_bits, ranks=ranks).run()
    adapters = [
        adapter_of(tiny_model, seed, rank) for seed, rank in zip((1, 2), ranks, strict=True)
    ]
    models = {
        place: merged_model(tiny_model, None if place < 0 else adapters[place])
        for place in set(PLACES)
    }
    for slot, place in enumerate(PLACES):
        ids = tokens(LENGTHS[slot] + 2, slot)
        wanted = torch.log_softmax(logits_of(models[place], ids), -1)
        apart = (found[slot] - wanted).abs()
        assert float(apart.mean()) < mean, slot
        assert float(apart.max()) < most, slot
        others = [other for other in models if other != place]
        for other in others:  # and not as another row's model would
            strange = torch.log_softmax(logits_of(models[other], ids), -1)
            assert float((found[slot] - strange).abs().mean()) > 5 * mean, slot


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("rows", [1, 3, 6, 7, 33, 65])
@pytest.mark.parametrize("outputs", [96, 77])
def test_a_product_of_eight_bits_is_that_of_the_rounded_numbers(rows: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(outputs, 160, generator=generator).bfloat16()
    bias = torch.randn(outputs, generator=generator).bfloat16()
    x = torch.randn(rows, 160, generator=generator)
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    head = torch.classes.tunery.Head(weight, laid_out, bias, True)
    if torch.ops.tunery.has_tiles():
        used_x, used_weight = x.bfloat16().double(), weight.double()
        if rows <= 64:
            used_weight = rounded(used_weight)
    else:  # every 32 turned by the matrix with -1 where two numbers share an odd count of bits
        turning = torch.tensor(
            [[(-1.0) ** (i & j).bit_count() for j in range(32)] for i in range(32)]
        ).double()
        used_x = rounded((x.double().view(-1, 32) @ turning).view(rows, 160))
        turned = (weight.double().view(-1, 32) @ turning / 32).view(outputs, 160)
        plain = weight.double().view(outputs, -1, 32)
        level = (plain.amax(2, keepdim=True) - plain.amin(2, keepdim=True)) / 15 / 32
        used_weight = rounded(turned, level, level / 2)
    wanted = used_x @ used_weight.t() + bias.double()
    # A number at the border of two may be rounded to either: one part in 127 of some 13, by a
    # weight that is turned to some 0.2.
    torch.testing.assert_close(head.product(x).double(), wanted, rtol=1e-4, atol=0.03)


def rounded(numbers: Tensor, *others: Tensor) -> Tensor:
    """Return whole numbers of eight bits times the scale of their 32.

    The scale is that of the largest number or, where more is kept so, one of the others'.
    """
    groups = numbers.view(len(numbers), -1, 32)
    largest = groups.abs().amax(2, keepdim=True) / 127
    # Weights' scales are kept in half precision.
    scales = [(scale * 1024).half().double() / 1024 for scale in (largest, *others)]
    kept = [
        (groups / scale).round().clamp(-127, 127) * scale
        for scale in (scales if others else [largest])
    ]
    lost = torch.stack([(one - groups).square().sum(2) for one in kept])
    best = lost.argmin(0)[None, ..., None].expand(1, *groups.shape)
    return torch.stack(kept).gather(0, best)[0].view(numbers.shape)


@pytest.mark.usefixtures("operations")
def test_weights_that_come_from_four_bits_lose_half_as_much() -> None:
    if torch.ops.tunery.has_tiles():
        pytest.skip("weights are not turned for products in tiles")
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 16, (96, 10, 32), generator=generator).double()
    levels[..., 0], levels[..., 1] = 0, 15
    sizes = torch.rand(96, 10, 1, generator=generator).double() * 0.02 + 0.01
    fours = ((levels - 7.2) * sizes).view(96, 320)
    others = torch.randn(96, 320, generator=generator).double() * fours.std()
    # One number in each 32, so that a row turned has 32 equal ones and loses nothing.
    x = torch.eye(320)[::32].contiguous()
    lost = []
    for weight in (fours.bfloat16(), others.bfloat16()):
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        head = torch.classes.tunery.Head(weight, laid_out, torch.empty(0), True)
        wanted = weight.double()[:, ::32].t()
        lost.append(float((head.product(x).double() - wanted).square().mean().sqrt()))
    assert lost[0] < lost[1] / 1.7  # what is left: bfloat16 itself, and the sum of each 32


@pytest.mark.usefixtures("operations")
def test_a_row_in_eight_bits_is_the_same_to_the_bit_whatever_is_computed_beside_it(
    tiny_model: Path,
) -> None:
    if torch.ops.tunery.has_tiles():
        pytest.skip("products in tiles change their form with the number of rows")
    beside = Decoding(tiny_model, eight_bits=True).run()
    alone = Decoding(tiny_model, eight_bits=True)
    for slot, length in enumerate(LENGTHS):
        ids = tokens(length + 2, slot)
        rows = [alone.step([token], [], [(slot, 1)], [0]) for token in ids[:1]]
        rows.append(alone.step(ids[1:length], [], [(slot, length - 1)], range(1, length)))
        rows += [
            alone.step([ids[place]], [slot], [], [place]) for place in range(length, length + 2)
        ]
        assert torch.equal(torch.cat(rows), beside[slot]), slot


@pytest.mark.usefixtures("operations")
def test_an_adapter_that_comes_once_eight_bits_are_settled_on_is_the_one_that_was_there_before(
    tiny_model: Path,
) -> None:
    before = Decoding(tiny_model, eight_bits=True).run()
    later = Decoding(tiny_model, eight_bits=True, ranks=(40, 6))  # of others, which go first
    for name, seed in (("a", 1), ("b", 2)):
        later.stack.release(name)
        assert later.stack.unload(name)
        later.stack.load(name, adapter_of(tiny_model, seed, 4))
    later.places = {0: later.stack.acquire("a"), 1: later.stack.acquire("b"), -1: -1}
    # The one before went through bfloat16 on its way: numbers of eight bits hardly show it.
    for one, other in zip(before, later.run(), strict=True):
        assert float((one - other).abs().mean()) < 0.01


@pytest.mark.usefixtures("operations")
def test_in_eight_bits_an_adapter_takes_half_the_memory_and_gives_it_back(tiny_model: Path) -> None:
    if torch.ops.tunery.has_tiles():
        pytest.skip("adapters are in bfloat16 where products are computed in tiles")
    plain, eight = Decoding(tiny_model), Decoding(tiny_model, eight_bits=True)
    # At rank 16, in each of two layers of (64, 64) twice, (32, 64) twice, (96, 64) twice and
    # (64, 96): A of 48, 16 and 32 outputs over 64 inputs and of 16 over 96, and a sixteenth as
    # much for its scales; B of 448 outputs, each with 16 numbers and two bytes of a scale.
    downs = (48 + 16 + 32) * 64 + 16 * 96
    wanted = 2 * (downs * 17 // 16 + 16 * 448 + 2 * 448)
    assert eight.stack.bytes_of(16) == -(-wanted // 4096) * 4096
    assert eight.stack.bytes_of(16) < 0.6 * plain.stack.bytes_of(16)
    eight.stack.count_again()
    assert eight.stack.bytes == 2 * eight.stack.bytes_of(4)


def test_without_a_compiler_nothing_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native.missing_features():
        pytest.skip("this processor could not run them anyway")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(native.NotBuilt, match="no compiler was found"):
        native.build(tmp_path / "native")
    assert native.built(tmp_path / "native") is None


def test_a_damaged_file_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "decoder.so"
    path.write_bytes(b"\x7fELF nothing")
    with pytest.raises(native.NotBuilt, match="cannot be loaded"):
        native.load(path)

"""The cache takes memory as it is written, not as it is made, and gives it back."""

import torch

from support.networks import resident_bytes
from tunery.model.cached import SlotCache


def test_a_cache_takes_the_memory_of_the_tokens_in_it() -> None:
    before = resident_bytes()
    cache = SlotCache(4, 15, 4, 8192, 64, torch.bfloat16)  # 4 x 2 x 16 x 4 x 8192 x 64 x 2 bytes
    assert cache.bytes_of(200) == 4 * 2 * 4 * 224 * 64 * 2  # 200 tokens end in the 7th 32
    for tensor in (*cache.keys, *cache.values):
        tensor[:15, :, :200] = 1
    written = 15 * cache.bytes_of(200)
    assert 0.9 * written < resident_bytes() - before < written + 16 * 2**20  # of 512 MiB
    assert float(cache.keys[3][15].abs().max()) == 0.0
    assert cache.values[0].dtype == torch.bfloat16
    for slot in range(15):
        cache.clear(slot, 0, 200)
    assert resident_bytes() - before < 0.5 * written


def test_tokens_are_copied_between_slots_and_cleared_from_where_they_are_not_wanted() -> None:
    cache = SlotCache(2, 3, 2, 100, 16, torch.float32)
    tensors = [*cache.keys, *cache.values]
    for number, tensor in enumerate(tensors):
        tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(number)))
    before = [tensor.clone() for tensor in tensors]
    cache.copy(0, 2, 40)
    cache.clear(1, 33, 90)
    for tensor, old in zip(tensors, before, strict=True):
        assert torch.equal(tensor[2, :, :40], old[0, :, :40])
        assert torch.equal(tensor[2, :, 40:], old[2, :, 40:])
        assert not tensor[1, :, 33:90].any()
        old[1, :, 33:90] = 0
        assert torch.equal(tensor[1], old[1])
        assert torch.equal(tensor[0], old[0])
        assert torch.equal(tensor[3], old[3])

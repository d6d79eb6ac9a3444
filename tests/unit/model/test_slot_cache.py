"""The cache takes memory as it is written, not as it is made."""

import resource

import torch

from tunery.model.attention import SlotCache


def resident_bytes() -> int:
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[1]) * resource.getpagesize()


def test_a_large_cache_that_nobody_has_written_takes_next_to_no_memory() -> None:
    before = resident_bytes()
    cache = SlotCache(4, 15, 4, 8192, 64, torch.bfloat16)  # 4 x 2 x 16 x 4 x 8192 x 64 x 2 bytes
    assert resident_bytes() - before < 64 * 2**20  # of 512 MiB
    assert float(cache.keys[3][15].abs().max()) == 0.0
    assert cache.values[0].dtype == torch.bfloat16

"""Pages are taken as they are written, and are zero and gone when they are cleared."""

import torch

from support.networks import resident_bytes
from tunery.model.memory import Pages

MIB = 2**20


def test_memory_is_taken_where_it_is_written_only() -> None:
    before = resident_bytes()
    pages = Pages((64, 4 * MIB), torch.uint8)
    pages.tensor[:, :100] = 1  # 64 places, 4 MiB apart: with large pages, 128 MiB
    assert resident_bytes() - before < 8 * MIB
    assert int(pages.tensor[:, 90:110].sum()) == 64 * 10


def test_what_is_cleared_is_zero_and_its_memory_is_given_back() -> None:
    pages = Pages((3, 8 * MIB), torch.bfloat16)
    pages.tensor.fill_(1)
    full = resident_bytes()
    pages.clear(pages.tensor[1])
    assert full - resident_bytes() > 15 * MIB
    assert pages.tensor[1].count_nonzero() == 0
    assert pages.tensor[::2].count_nonzero() == 16 * MIB


def test_a_part_that_is_not_made_of_whole_pages_leaves_its_neighbours_as_they_are() -> None:
    for first, last in ((0, 5), (5, 9), (1000, 9001), (2048, 8192), (9990, 10000)):
        pages = Pages((10_000,), torch.float32)
        pages.tensor.fill_(7)
        pages.clear(pages.tensor[first:last])
        wanted = torch.full((10_000,), 7.0)
        wanted[first:last] = 0
        assert torch.equal(pages.tensor, wanted)

"""Memory that is taken page by page where it is written, and can be given back.

Knows nothing of what is kept in it.
"""

import ctypes
import math
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor


def give_back() -> None:
    """Give memory that was let go of back to the system, where the C library keeps it (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Pages:
    """Zeros that take no memory until they are written.

    Large pages are refused: with them, which numpy's and torch's large arrays ask the system for,
    one number written takes two megabytes.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if sys.platform == "linux":
            with suppress(OSError):  # a kernel that was built without large pages
                self._map.madvise(mmap.MADV_NOHUGEPAGE)
        raw = torch.frombuffer(self._map, dtype=torch.uint8)
        self._start = raw.data_ptr()
        self.tensor = raw.view(dtype).view(*shape)

    def clear(self, part: Tensor) -> None:
        """Make a contiguous part of `tensor` zero, and give its whole pages back to the system."""
        if sys.platform != "linux":  # elsewhere pages given back may still hold what they held
            part.zero_()
            return
        raw = part.view(-1).view(torch.uint8)
        first = raw.data_ptr() - self._start
        last = first + len(raw)
        first_page = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
        end_of_pages = last // mmap.PAGESIZE * mmap.PAGESIZE
        if first_page >= end_of_pages:
            raw.zero_()
            return
        raw[: first_page - first].zero_()
        raw[end_of_pages - first :].zero_()
        self._map.madvise(mmap.MADV_DONTNEED, first_page, end_of_pages - first_page)

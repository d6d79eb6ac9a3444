"""What an engine takes, reckoned by hand."""

import os
from decimal import Decimal
from pathlib import Path

from tunery.domain.models import BaseModel, Prices
from tunery.settings import EngineSettings
from tunery.wiring.memory import bound_bytes, engine_bytes, process_bytes

PRICES = Prices(*[Decimal(0)] * 5)


def a_base(folder: Path, context: int = 512) -> BaseModel:
    return BaseModel("tiny", (), str(folder), "0" * 64, context, 1e-3, PRICES, 0)


def test_an_engine_takes_its_weights_its_cache_and_its_adapters(tiny_model: Path) -> None:
    weights = (tiny_model / "model.safetensors").stat().st_size
    settings = EngineSettings(rows=3, context_tokens=100, adapters=5, max_rank=8)
    # Two layers, two key and value heads of 16: 2 * 2 * 32 numbers a token, two bytes each.
    cache = 3 * 100 * 2 * 2 * 32 * 2
    # Hidden 64, queries 64, keys 32, inner 96: q 128, k 96, v 96, o 128, gate, up, down 160 each.
    adapters = 5 * 8 * 2 * (128 + 96 + 96 + 128 + 3 * 160) * 2
    whole = 600 * 1024**2 + weights + cache + adapters
    assert engine_bytes(a_base(tiny_model), settings) == whole
    # A context shorter than the setting's bounds the cache.
    assert engine_bytes(a_base(tiny_model, 50), settings) == whole - cache // 2


def test_the_bound_is_the_operators_or_half_of_what_there_is() -> None:
    assert bound_bytes(EngineSettings(max_bytes=12345)) == 12345
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < bound_bytes(EngineSettings()) <= memory // 2


def test_a_process_is_measured_and_one_that_is_gone_is_not() -> None:
    mine = process_bytes(os.getpid())
    if Path("/proc/self/statm").exists():
        assert mine is not None
        assert mine > 10 * 1024**2  # an interpreter with pytest in it
    assert process_bytes(2**22 + 1) is None

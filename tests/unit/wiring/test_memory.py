"""What an engine takes, reckoned by hand."""

import os
from decimal import Decimal
from pathlib import Path

from tunery.domain.models import BaseModel, Prices
from tunery.settings import EngineSettings
from tunery.wiring.memory import bound_bytes, engine_bytes, process_bytes

PRICES = Prices(*[Decimal(0)] * 5)


def test_an_engine_takes_its_weights_twice_its_cache_and_its_adapters(tmp_path: Path) -> None:
    for shard, size in enumerate((1000, 500)):
        (tmp_path / f"model-{shard}.safetensors").write_bytes(bytes(size))
    (tmp_path / "optimizer.bin").write_bytes(bytes(10_000))
    base = BaseModel("tiny", (), str(tmp_path), "0" * 64, 512, 1e-3, PRICES, 0)
    settings = EngineSettings(cache_bytes=2**21, adapter_bytes=2**20)
    assert engine_bytes(base, settings) == 600 * 1024**2 + 3000 + 2**21 + 2**20


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

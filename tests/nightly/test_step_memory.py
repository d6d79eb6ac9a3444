"""The default base learns from its whole context: memory grows with length, not with its square."""

from itertools import pairwise
from pathlib import Path

import pytest

from nightly.conftest import Figures
from support.step_memory import SHAPES, measure
from tunery.settings import DEFAULT_BASE, Settings
from tunery.storage.catalogue import Catalogue

MEGABYTE = 2**20
LENGTHS = (1024, 2048, 4096, 8192)
MOST = 2.5  # times the memory for twice the tokens


@pytest.mark.parametrize("method", ["supervised", "dpo"])
@pytest.mark.parametrize("shape", SHAPES)
def test_twice_the_tokens_take_about_twice_the_memory(
    tmp_path: Path, figures: Figures, shape: str, method: str
) -> None:
    folder = Settings().models_path
    base = Catalogue(folder).get(DEFAULT_BASE)
    assert base is not None, f"{folder} has no {DEFAULT_BASE}; run `tunery models pull`"
    assert base.context_tokens == LENGTHS[-1]
    above = []
    for tokens in LENGTHS:
        own = tmp_path / str(tokens)
        own.mkdir()
        found = measure(shape, method, tokens, Path(base.path), own)
        above.append(found.most - found.before)
    figures.keep(
        f"step-memory-{shape}-{method}",
        {
            "tokens": LENGTHS,
            "memory above the model's own, MB": [round(one / MEGABYTE) for one in above],
        },
    )
    for less, more in pairwise(above):
        assert more <= MOST * less

"""Adapter files: exchanged with PEFT both ways, and read with suspicion."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load, save
from torch import Tensor

from support.networks import (
    PEFT_WARNING,
    logits_of,
    merged_model,
    peft_model,
    plain_model,
    random_adapter,
    tokens,
)
from tunery.model import adapter_file
from tunery.model.adapter_file import AdapterWeights, BadAdapter
from tunery.model.base import load_base
from tunery.model.packed import PackedLayout
from tunery.training.adapter import LearnedAdapter

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

SHAPES = {"model.a": (6, 4), "model.b": (4, 6)}
PREFIX = "base_model.model."


def _weights() -> AdapterWeights:
    generator = torch.Generator().manual_seed(0)
    layers = {
        name: (
            torch.randn(2, inputs, generator=generator),
            torch.randn(outputs, 2, generator=generator),
        )
        for name, (outputs, inputs) in SHAPES.items()
    }
    return AdapterWeights(2, 3.0, layers)


def test_what_was_written_is_read_back_exactly() -> None:
    read = adapter_file.read(*adapter_file.write(_weights(), "base"), SHAPES, 2)
    assert (read.rank, read.alpha, read.scale) == (2, 3.0, 1.5)
    assert list(read.layers) == list(SHAPES)
    for name, matrices in _weights().layers.items():
        assert all(map(torch.equal, read.layers[name], matrices))


def test_layers_that_a_file_leaves_out_are_left_out() -> None:
    only = AdapterWeights(2, 3.0, {"model.b": _weights().layers["model.b"]})
    read = adapter_file.read(*adapter_file.write(only, "base"), SHAPES, 2)
    assert list(read.layers) == ["model.b"]


def test_files_written_here_load_into_peft_and_give_the_same_logits(
    tiny_model: Path, tmp_path: Path
) -> None:
    weights = random_adapter(tiny_model, 1)
    data, config = adapter_file.write(weights, "tiny")
    (tmp_path / "adapter_model.safetensors").write_bytes(data)
    (tmp_path / "adapter_config.json").write_bytes(config)
    base = plain_model(tiny_model)
    ids = tokens(20, 0)
    alone = logits_of(base, ids)
    got = logits_of(PeftModel.from_pretrained(base, tmp_path).eval(), ids)
    assert float((got - alone).abs().max()) > 0.5
    torch.testing.assert_close(
        got, logits_of(merged_model(tiny_model, weights), ids), rtol=1e-3, atol=1e-4
    )


def test_files_saved_by_peft_are_read_and_give_the_same_logits(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = peft_model(tiny_model, random_adapter(tiny_model, 2, rank=3, alpha=5.0))
    model.save_pretrained(tmp_path)
    network = load_base(tiny_model, torch.float32)
    read = adapter_file.read(
        (tmp_path / "adapter_model.safetensors").read_bytes(),
        (tmp_path / "adapter_config.json").read_bytes(),
        network.shapes(),
        3,
    )
    assert (read.rank, read.alpha, len(read.layers)) == (3, 5.0, 14)
    LearnedAdapter.over(network, seed=0, start_from=read)
    ids = tokens(32, 0)
    with torch.no_grad():
        got = network.head(network.hidden(torch.tensor(ids), PackedLayout([32], torch.float32)))
    torch.testing.assert_close(got, logits_of(model.eval(), ids), rtol=1e-3, atol=1e-4)


def _altered(
    tensors: Callable[[dict[str, Tensor]], object] = lambda _: None,
    config: Callable[[dict[str, Any]], object] = lambda _: None,
) -> tuple[bytes, bytes]:
    data, settings = adapter_file.write(_weights(), "base")
    loaded, values = load(data), json.loads(settings)
    tensors(loaded)
    config(values)
    return save(loaded), json.dumps(values).encode()


A, B = f"{PREFIX}model.a.lora_A.weight", f"{PREFIX}model.a.lora_B.weight"
GOOD = adapter_file.write(_weights(), "base")


def _poke(value: float) -> tuple[bytes, bytes]:
    return _altered(lambda t: t[B].view(-1)[3:4].fill_(value))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param((b"", GOOD[1]), "cannot be read", id="empty"),
        pytest.param((GOOD[0][:-1], GOOD[1]), "cannot be read", id="cut off"),
        pytest.param((b"\xff" * 8 + GOOD[0][8:], GOOD[1]), "cannot be read", id="header's length"),
        pytest.param((GOOD[0][:8] + b"[" + GOOD[0][9:], GOOD[1]), "cannot be read", id="header"),
        pytest.param((GOOD[0], b"{"), "cannot be read", id="config is no JSON"),
        pytest.param((GOOD[0], b"\xff"), "cannot be read", id="config is no text"),
        pytest.param((GOOD[0], b"[]"), "cannot be read", id="config is a list"),
        pytest.param((GOOD[0], b"{}"), "cannot be read", id="config is empty"),
        *(
            pytest.param(
                _altered(config=lambda c, r=rank: c.update(r=r)),  # type: ignore[misc]
                "rank",
                id=f"rank {rank}",
            )
            for rank in (0, -1, 9, 2.0, "2", True, None)
        ),
        pytest.param(_altered(config=lambda c: c.update(r=1)), "shapes", id="rank of other files"),
        *(
            pytest.param(
                _altered(config=lambda c, a=alpha: c.update(lora_alpha=a)),  # type: ignore[misc]
                "lora_alpha",
                id=f"alpha {alpha}",
            )
            for alpha in (0, -1.0, float("nan"), float("inf"), 1e5, "2", True, None)
        ),
        *(
            pytest.param(
                _altered(config=lambda c, s=switch: c.update({s: True})),  # type: ignore[misc]
                switch,
                id=switch,
            )
            for switch in ("use_rslora", "use_dora", "fan_in_fan_out")
        ),
        pytest.param(
            _altered(config=lambda c: c.update(alpha_pattern={"a": 64})),
            "alpha_pattern",
            id="alpha of single layers",
        ),
        pytest.param(_altered(lambda t: t.pop(A)), "only one", id="no A"),
        pytest.param(_altered(lambda t: t.pop(B)), "only one", id="no B"),
        pytest.param(
            _altered(lambda t: t.update({A: torch.zeros(2, 5)})), "shapes", id="inputs of A"
        ),
        pytest.param(
            _altered(lambda t: t.update({A: torch.zeros(4, 2)})), "shapes", id="A transposed"
        ),
        pytest.param(
            _altered(lambda t: t.update({B: torch.zeros(7, 2)})), "shapes", id="outputs of B"
        ),
        pytest.param(_altered(lambda t: t.update({B: torch.zeros(12)})), "shapes", id="B flat"),
        pytest.param(_poke(float("nan")), "not finite", id="NaN"),
        pytest.param(_poke(float("-inf")), "not finite", id="infinity"),
        pytest.param(
            _altered(lambda t: t.update({f"{PREFIX}lm_head.lora_A.weight": torch.zeros(1)})),
            "lm_head",
            id="unknown layer",
        ),
        pytest.param(
            _altered(lambda t: t.update({"model.a.weight": torch.zeros(6, 4)})),
            "model.a.weight",
            id="a base's weight",
        ),
        pytest.param(_altered(dict.clear), "no layer", id="no tensor"),
        pytest.param(
            _altered(lambda t: t.update({A: torch.zeros(2, 4, dtype=torch.int64)})),
            "type",
            id="whole numbers",
        ),
        pytest.param(
            _altered(lambda t: t.update({A: torch.zeros(2, 4, dtype=torch.complex64)})),
            "type",
            id="complex numbers",
        ),
        pytest.param(
            _altered(lambda t: t.update({A: torch.zeros(2, 4).to(torch.float8_e4m3fn)})),
            "type",
            id="8-bit numbers",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(files: tuple[bytes, bytes], says: str) -> None:
    with pytest.raises(BadAdapter, match=says):
        adapter_file.read(*files, SHAPES, 8)

"""A base from its folder: its linears, its types, and that it is frozen."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from support.networks import PEFT_WARNING, logits_of, plain_model, tokens
from tunery.engine.adapters import AdapterStack
from tunery.model.attention import PackedLayout
from tunery.model.base import linear, load_base, replace


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_targets_are_the_layers_that_peft_calls_all_linear(tiny_model: Path) -> None:
    model = get_peft_model(
        plain_model(tiny_model), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    )
    wanted = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A")
        for name, _ in model.named_modules()
        if name.endswith(".lora_A")
    }
    network = load_base(tiny_model, torch.float32)
    assert set(network.targets) == wanted
    assert len(network.targets) == 2 * 7


def test_shapes_follow_from_the_configuration(tiny_model: Path) -> None:
    network = load_base(tiny_model, torch.float32)
    attention, mlp = "model.layers.1.self_attn.", "model.layers.1.mlp."
    shapes = network.shapes()
    assert {name: shapes[name] for name in shapes if ".1." in name} == {
        attention + "q_proj": (64, 64),
        attention + "k_proj": (32, 64),
        attention + "v_proj": (32, 64),
        attention + "o_proj": (64, 64),
        mlp + "gate_proj": (96, 64),
        mlp + "up_proj": (96, 64),
        mlp + "down_proj": (64, 96),
    }
    assert (network.layers, network.key_value_heads, network.head_size) == (2, 2, 16)
    assert network.context_tokens == 512


def test_every_weight_is_frozen(tiny_model: Path) -> None:
    network = load_base(tiny_model, torch.float32)
    parameters = [*network.decoder.parameters(), *network.head.parameters()]
    assert parameters
    assert not any(parameter.requires_grad for parameter in parameters)


def test_a_replaced_linear_is_the_one_that_computes(tiny_model: Path) -> None:
    network = load_base(tiny_model, torch.float32)
    name = "model.layers.0.mlp.down_proj"
    zero = nn.Linear(96, 64, bias=False)
    nn.init.zeros_(zero.weight)
    replace(network, name, zero)
    assert linear(network, name) is zero
    reference = plain_model(tiny_model)
    nn.init.zeros_(reference.get_submodule(name).weight)
    ids = tokens(32, 0)
    with torch.no_grad():
        logits = network.head(network.hidden(torch.tensor(ids), PackedLayout([32], torch.float32)))
    torch.testing.assert_close(logits, logits_of(reference, ids), rtol=1e-4, atol=2e-5)


def test_bfloat16_stays_close_to_float32(tiny_model: Path) -> None:
    network = load_base(tiny_model, torch.bfloat16)
    AdapterStack(network, 1, 4, 2**30)
    ids = tokens(64, 0)
    with torch.no_grad():
        hidden = network.hidden(torch.tensor(ids), PackedLayout([64], torch.bfloat16))
        logits = network.head(hidden).float()
    assert hidden.dtype == torch.bfloat16
    wanted = logits_of(plain_model(tiny_model), ids)
    apart = (torch.log_softmax(logits, -1) - torch.log_softmax(wanted, -1)).abs()
    # A rounding to bfloat16 is 2^-9 of a number; logits are a few units here.
    assert float(apart.mean()) < 0.01
    assert float(apart.max()) < 0.1

"""A base from its folder: its linears, its types, and that it is frozen."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from support.families import make_family
from support.networks import PEFT_WARNING, logits_of, plain_model, tokens
from tunery.engine.adapters import AdapterStack
from tunery.model.base import compute_dtype, linear, load_base, replace
from tunery.model.packed import PackedLayout
from tunery.training.adapter import LearnedAdapter


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_targets_are_the_layers_that_peft_calls_all_linear(any_base: Path) -> None:
    model = get_peft_model(
        plain_model(any_base), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    )
    wanted = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A")
        for name, _ in model.named_modules()
        if name.endswith(".lora_A")
    }
    network = load_base(any_base, torch.float32)
    assert set(network.targets) == wanted
    assert len(network.targets) == network.layers * 7


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


def test_bfloat16_stays_close_to_float32(any_base: Path) -> None:
    network = load_base(any_base, torch.bfloat16)
    AdapterStack(network, 1, 4, 2**30)
    ids = tokens(64, 0)
    with torch.no_grad():
        hidden = network.hidden(torch.tensor(ids), PackedLayout([64], torch.bfloat16))
        logits = network.head(hidden).float()
    assert hidden.dtype == torch.bfloat16
    wanted = logits_of(plain_model(any_base), ids)
    apart = (torch.log_softmax(logits, -1) - torch.log_softmax(wanted, -1)).abs()
    # A rounding to bfloat16 is 2^-9 of a number; logits are a few units here.
    assert float(apart.mean()) < 0.01
    assert float(apart.max()) < 0.1


def test_an_embedding_is_scaled_in_float32_as_the_proofs_reference_does(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "gemma3")
    embedding = load_base(folder, torch.bfloat16).decoder.inner.embed_tokens
    ids = torch.tensor(tokens(20, 0))
    wanted = plain_model(folder).model.embed_tokens(ids)  # times the root of 48: 6.9282
    torch.testing.assert_close(embedding(ids), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("family", "fused"), [("llama", True), ("qwen2", True), ("qwen3", True), ("gemma3", False)]
)
def test_which_families_are_computed_in_fewer_operations(
    tmp_path: Path, family: str, fused: bool
) -> None:
    folder = make_family(tmp_path, family)
    served, trained = (load_base(folder, torch.float32) for _ in range(2))
    AdapterStack(served, 1, 4, 2**30)
    LearnedAdapter.over(trained, seed=0, start_from=None)
    assert (served.decoder.fused is not None) == fused
    assert (trained.decoder.trained is not None) == fused


@pytest.mark.parametrize(("family", "native"), [("llama", True), ("qwen2", True), ("qwen3", False)])
def test_native_operations_are_not_asked_for_norms_of_heads(
    tmp_path: Path, family: str, native: bool
) -> None:
    if compute_dtype() != torch.bfloat16:
        pytest.skip("this processor has no bfloat16")
    network = load_base(make_family(tmp_path, family), torch.bfloat16)
    AdapterStack(network, 1, 4, 2**30)
    assert network.decoder.fused is not None
    assert network.decoder.fused.takes_native() == native

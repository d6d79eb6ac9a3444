"""Which bases are refused, in what words; and that one which is not has transformers' numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from support.families import make_family
from support.networks import logits_of, plain_model, tokens
from tunery.model import attention
from tunery.model.base import Unmapped, load_base, network_of
from tunery.model.mapping import check_base, check_structure
from tunery.model.packed import PackedLayout

_SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
_UNGROUPED = {key: value for key, value in _SIZES.items() if key != "num_key_value_heads"}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 512}
_DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
_GPTQ = {"quant_method": "gptq", "bits": 4}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "Conv1D": (
        "gpt2",
        _GPT2,
        "its layer transformer.h.0.attn.c_attn is a Conv1D, not a Linear that LoRA can be put on",
    ),
    "experts": (
        "qwen3_moe",
        {**_SIZES, "num_experts": 4, "moe_intermediate_size": 16},
        "its layer model.layers.0.mlp.experts is a Qwen3MoeExperts, not a Linear that LoRA can be"
        " put on",
    ),
    "a router": (
        "mixtral",
        _SIZES,
        "its layer model.layers.0.mlp.gate is a MixtralTopKRouter, not a Linear that LoRA can be"
        " put on",
    ),
    "flat rows": (
        "opt",
        {**_UNGROUPED, "ffn_dim": 48, "word_embed_proj_dim": 32},
        "its layer model.decoder.layers.0.fc1 is given (4, 32), not a row",
    ),
    "softcapped attention": ("gemma2", {**_SIZES, "head_dim": 8}, "it has attention with softcap"),
    "attention both ways": (
        "gemma3_text",
        {**_SIZES, "head_dim": 8, "use_bidirectional_attention": True},
        "it has attention to tokens that come later",
    ),
    "attention of its own": (
        "stablelm",
        _SIZES,
        "it does not run over packed texts: _attention() missing 1 required positional argument:"
        " 'layout'",
    ),
    "chunks": (
        "llama4_text",
        _SIZES,
        "it has layers of chunked_attention; needed full_attention or sliding_attention",
    ),
    "a rotation by length": (
        "llama",
        {**_SIZES, "rope_parameters": _DYNAMIC},
        "its rotation's angles depend on how long a text is",
    ),
    "scaled logits": ("cohere", _SIZES, "it changes the logits after its output layer"),
    "softcapped logits": (
        "gemma3_text",
        {**_SIZES, "head_dim": 8, "final_logit_softcapping": 30.0},
        "it changes the logits after its output layer",
    ),
    "a bias on the logits": (
        "phi",
        _SIZES,
        "its output layer is Linear(in_features=32, out_features=99, bias=True); needed Linear"
        " without a bias",
    ),
    "quantized weights": (
        "llama",
        {**_SIZES, "quantization_config": _GPTQ},
        "its weights are quantized; needed float32, bfloat16 or float16",
    ),
    "no causal model": ("t5", {}, "transformers makes no causal model of it"),
    "no known context": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "max_position"),
}


@pytest.fixture(autouse=True)
def registered() -> None:
    attention.register()


@pytest.mark.parametrize("what", REFUSED)
def test_a_base_that_cannot_be_computed_here_is_refused_for_what_it_does(what: str) -> None:
    kind, numbers, why = REFUSED[what]
    with pytest.raises(Unmapped) as refused:
        check_structure(AutoConfig.for_model(kind, **numbers))
    assert why in str(refused.value)


def test_a_layer_whose_window_the_attention_is_not_told_of_is_refused() -> None:
    config = AutoConfig.for_model("llama", **_SIZES, sliding_window=16)
    with pytest.raises(Unmapped, match="layer 0 attends to all tokens; the configuration tells of"):
        check_structure(config)


class _Halved(nn.Linear):
    """Computes something else than the layer that it says it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 2


def test_a_linear_of_another_kind_is_refused(tiny_model: Path) -> None:
    model = plain_model(tiny_model)
    model.model.layers[1].mlp.up_proj = _Halved(64, 96, bias=False)
    with pytest.raises(Unmapped, match=r"model\.layers\.1\.mlp\.up_proj is a _Halved"):
        network_of(model, torch.float32)


def test_the_families_that_are_served_here_are_taken(any_base: Path) -> None:
    check_base(any_base)


# Of each something else that is taken: multipliers, norms behind the parts, one product for
# queries, keys and values, a part of each head rotated or of the layers, biases, other gates.
TAKEN: dict[str, dict[str, Any]] = {
    "gemma": {**_SIZES, "head_dim": 8},
    "phi3": {**_SIZES, "sliding_window": 40},
    "gpt_neox": {**_UNGROUPED, "rotary_pct": 0.5},
    "granite": {**_SIZES, "embedding_multiplier": 3.0, "residual_multiplier": 0.4},
    "glm4": {**_SIZES, "head_dim": 8},
    "olmo3": {**_SIZES, "sliding_window": 40, "num_hidden_layers": 4},
    "smollm3": {**_SIZES, "num_hidden_layers": 4},
    "starcoder2": {**_SIZES, "sliding_window": 40},
    "apertus": _SIZES,
}


@pytest.mark.parametrize("kind", TAKEN)
def test_any_other_base_that_is_taken_has_transformers_numbers(tmp_path: Path, kind: str) -> None:
    config = AutoConfig.for_model(kind, **TAKEN[kind])
    check_structure(config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # biases and norms as well
    model.save_pretrained(tmp_path)
    network = load_base(tmp_path, torch.float32)
    beginning = tokens(50, 0)
    texts = [[token % 99 for token in beginning + tokens(n, n)] for n in (40, 3)]
    layout = PackedLayout([len(ids) for ids in texts], torch.float32, shared=50)
    row = texts[0] + texts[1][50:] + [0] * layout.padding
    with torch.no_grad():
        logits = network.head(network.hidden(torch.tensor(row), layout))
    wanted = [logits_of(plain_model(tmp_path), ids) for ids in texts]
    torch.testing.assert_close(logits[:90], wanted[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[90:93], wanted[1][50:], rtol=1e-4, atol=1e-4)


def test_weights_that_are_missing_are_named_and_not_made_up(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "qwen2")
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(Unmapped) as refused:
        check_base(folder)
    assert str(refused.value) == (
        "Qwen2ForCausalLM cannot be tuned here: its files lack model.layers.1.mlp.up_proj.weight."
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "unheard"}, "its config.json is not understood: The checkpoint"),
        ({"hidden_size": 32}, "LlamaForCausalLM cannot be loaded: "),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    folder = make_family(tmp_path, "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(Unmapped) as refused:
        check_base(folder)
    assert str(refused.value).startswith(why)
    assert "\n" not in str(refused.value)

"""The decoder of training against transformers' own modules, each family that it knows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from support.families import make_family
from support.networks import tokens
from tunery.model import trained
from tunery.model.base import load_base
from tunery.model.packed import PackedLayout
from tunery.training.adapter import LearnedAdapter

_SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
# Llama with a head size of its own, and a rotation of another base; Qwen2 has biases, Qwen3 norms
# of each query and key head.
_FAMILIES = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            **_SIZES, head_dim=12, rope_parameters={"rope_type": "default", "rope_theta": 500.0}
        )
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SIZES, head_dim=12)),
}


@pytest.mark.parametrize("family", _FAMILIES)
def test_hidden_states_and_gradients_are_those_of_the_modules(tmp_path: Path, family: str) -> None:
    torch.manual_seed(0)
    model = _FAMILIES[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # biases and norms as well
    model.save_pretrained(tmp_path)
    texts = [tokens(9, 0), tokens(14, 1)]
    ids = torch.tensor([token % 97 for text in texts for token in text] + [0] * 9)
    weighting = torch.randn(23, 32)
    found: list[tuple[Tensor, list[Tensor | None]]] = []
    for fused in (True, False):
        network = load_base(tmp_path, torch.float32)
        learned = LearnedAdapter.over(network, seed=3, start_from=None)
        assert network.decoder.trained is not None
        if not fused:
            network.decoder.trained = None
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for layer in learned.layers.values():
                layer.up.copy_(torch.randn(layer.up.shape, generator=generator) * 0.1)
        hidden = network.hidden(ids, PackedLayout([9, 14], torch.float32))[:23]
        (hidden * weighting).sum().backward()  # type: ignore[no-untyped-call]
        found.append((hidden.detach(), [one.grad for one in learned.parameters()]))
    (hidden, gradients), (wanted, wanted_gradients) = found
    torch.testing.assert_close(hidden, wanted, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        assert one is not None
        assert other is not None
        size = float(other.abs().max())
        assert size > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * size)


@pytest.mark.parametrize(  # in fewer operations, and by modules
    ("family", "scarce"), [("llama", "tokens"), ("llama", "memory"), ("gemma3", "tokens")]
)
def test_what_is_computed_again_has_the_same_gradients_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, scarce: str
) -> None:
    folder = make_family(tmp_path, family)
    ids = torch.tensor(tokens(64, 0))
    attended: list[PackedLayout] = []
    attend = PackedLayout.attend_packed

    def counted(layout: PackedLayout, *arguments: Any) -> Tensor:
        attended.append(layout)
        return attend(layout, *arguments)

    monkeypatch.setattr(PackedLayout, "attend_packed", counted)
    found: list[list[Tensor | None]] = []
    for kept in (64, 63):
        network = load_base(folder, torch.float32)
        learned = LearnedAdapter.over(network, seed=3, start_from=None)
        if scarce == "tokens":
            monkeypatch.setattr(trained, "KEPT_TOKENS", kept)
        else:  # half of what is free is enough for so many tokens
            assert network.decoder.trained is not None
            free = 2 * kept * network.decoder.trained.token_bytes
            monkeypatch.setattr(trained, "free_bytes", lambda device, free=free: free)
        attended.clear()
        hidden = network.hidden(ids, PackedLayout([64], torch.float32))
        hidden.square().sum().backward()  # type: ignore[no-untyped-call]
        assert len(attended) == (network.layers if kept == 64 else 2 * network.layers)
        found.append([one.grad for one in learned.parameters()])
    assert all(map(torch.equal, *found))


def test_memory_is_asked_for_what_a_token_really_takes(tiny_model: Path) -> None:
    network = load_base(tiny_model, torch.float32)
    LearnedAdapter.over(network, seed=3, start_from=None)
    assert network.decoder.trained is not None

    def kept(count: int) -> int:
        """Return the bytes that a row of so many tokens keeps for the backward pass."""
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        layout = PackedLayout([32] * (count // 32), torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            hidden = network.hidden(torch.tensor(tokens(count, 0)), layout)
        assert hidden.requires_grad
        return sum(storages.values())

    per_token = (kept(256) - kept(128)) / 128  # without the weights, which both keep
    assert network.decoder.trained.token_bytes == pytest.approx(per_token, rel=0.25)

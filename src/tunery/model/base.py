"""A base model from a local folder in Hugging Face layout: safetensors, no remote code.

Knows no adapter. The decoder and the output layer are kept apart, so that logits are computed
only for the tokens that need them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from tunery.model import attention, trained
from tunery.model.device import CPU
from tunery.model.fused import ROUND_ROWS, FusedDecoder
from tunery.model.operations import TORCH, Operations
from tunery.model.trained import TrainedDecoder


class Unmapped(ValueError):
    """A base that adapters cannot be learned over here; the text says why."""


@dataclass(frozen=True, slots=True)
class BaseNetwork:
    """A frozen causal language model.

    `targets` are the names of its linear layers, the output layer left out: what PEFT calls
    "all-linear".
    """

    decoder: "Decoder"
    head: nn.Linear
    targets: tuple[str, ...]
    layers: int
    key_value_heads: int
    head_size: int
    context_tokens: int
    dtype: torch.dtype
    device: torch.device

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Return (outputs, inputs) of each target."""
        shapes = {}
        for name in self.targets:
            layer = linear(self, name)
            shapes[name] = (layer.out_features, layer.in_features)
        return shapes

    @property
    def round_rows(self) -> int:
        """Return what number of rows, or a multiple of it, is computed quickly."""
        fused = self.decoder.fused
        return ROUND_ROWS if fused is None else fused.round_rows

    def hidden(self, token_ids_T: Tensor, layout: Any, rows: Tensor | None = None) -> Tensor:
        """Return the last hidden states, [T, hidden], of one row of tokens; or of `rows` of it."""
        decoder = self.decoder
        if decoder.trained is not None:
            return decoder.trained.hidden(token_ids_T, layout, rows)
        if decoder.fused is not None:
            hidden = decoder.fused.hidden(token_ids_T, layout)
        else:
            decoder.again = torch.is_grad_enabled() and len(token_ids_T) > trained.KEPT_TOKENS
            out = decoder(
                input_ids=token_ids_T[None],
                position_ids=layout.positions[None],
                use_cache=False,
                layout=layout,
            )
            hidden = out.last_hidden_state[0].to(self.dtype)
        return hidden if rows is None else hidden.index_select(0, rows)


def compute_dtype(device: torch.device = CPU) -> torch.dtype:
    """Return bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def load_base(folder: Path, dtype: torch.dtype | None, device: torch.device = CPU) -> BaseNetwork:
    """Load the weights, frozen, in `dtype`, or as they are; raise Unmapped where LoRA has no place.

    Weights that are missing are no less so: transformers would make them up.
    """
    logging.disable_progress_bar()
    attention.register()
    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype or "auto",
        attn_implementation=attention.NAME,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(map(str, report["missing_keys"])):
        raise Unmapped(f"its files lack {', '.join(missing[:3])}")
    return network_of(model, model.dtype, device)


def network_of(model: Any, dtype: torch.dtype, device: torch.device = CPU) -> BaseNetwork:
    """Return transformers' model, whose numbers are of `dtype`, as a network, frozen."""
    model.requires_grad_(False).eval().to(device)
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        raise Unmapped(f"its output layer is {head}; needed Linear without a bias")
    # The residual stream is kept in float32: sixty roundings to bfloat16 would be most of the
    # distance to the fp32 reference. Linears and attention still compute in `dtype`.
    model.get_input_embeddings().register_forward_hook(_to_float)
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return BaseNetwork(
        decoder=Decoder(model, decoder, prefix),
        head=head,
        targets=_linears(decoder, prefix),
        layers=config.num_hidden_layers,
        key_value_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_size=size,
        context_tokens=config.max_position_embeddings,
        dtype=dtype,
        device=device,
    )


def _linears(decoder: nn.Module, prefix: str) -> tuple[str, ...]:
    """Return the names of the linear layers; raise Unmapped where there are matrices besides.

    A subclass of torch's Linear may compute something else, and other modules' matrices, as Conv1D
    or the experts of a mixture, are none that LoRA could be put on here.
    """
    linears = []
    for name, module in decoder.named_modules(prefix=prefix):
        if type(module) is nn.Linear:
            linears.append(name)
        elif not isinstance(module, nn.Embedding) and any(
            parameter.dim() > 1 for parameter in module.parameters(recurse=False)
        ):
            kind = type(module).__name__
            raise Unmapped(f"its layer {name} is a {kind}, not a Linear that LoRA can be put on")
    if not linears:
        raise Unmapped("it has no linear layer that LoRA could be put on")
    return tuple(linears)


def _to_float(module: Any, inputs: Any, output: Tensor) -> Tensor:
    """Return an embedding in float32; where it is scaled, as Gemma's is, it is scaled so too."""
    scale: float | None = getattr(module, "scalar_embed_scale", None)
    if scale is None:
        return output.float()
    return F.embedding(inputs[0], module.weight).float() * scale


class Decoder(nn.Module):
    """The decoder, with its modules found under the whole model's names, as PEFT writes them.

    `fused` for serving or `trained` for training, once it is set, computes in the modules' place;
    `operations` are what training computes between products.
    """

    def __init__(self, model: nn.Module, decoder: nn.Module, prefix: str) -> None:
        super().__init__()
        self.model = model
        self.prefix = prefix
        self.fused: FusedDecoder | None = None
        self.trained: TrainedDecoder | None = None
        self.operations: Operations = TORCH
        self._decoder = [decoder]  # in a list, so that it is not registered twice
        self.again = False
        """Whether a layer's results are computed again in the backward pass, or kept."""
        layer: Any
        for layer in decoder.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.forward = partial(self._through, layer.forward)

    @property
    def inner(self) -> Any:
        """Return transformers' decoder itself."""
        return self._decoder[0]

    def forward(self, **inputs: Any) -> Any:
        """Run transformers' decoder."""
        return self._decoder[0](**inputs)

    def _through(self, layer: Callable[..., Any], *inputs: Any, **others: Any) -> Any:
        if not self.again:
            return layer(*inputs, **others)
        return checkpoint(partial(layer, **others), *inputs, use_reentrant=False)


def copy_the_rest(network: BaseNetwork) -> None:
    """Copy every weight but those of the targets, so that the file they are mapped from can go.

    It goes once the targets' own linears are replaced.
    """
    targets = {f"model.{name}" for name in network.targets}
    for name, module in network.decoder.named_modules():
        if name not in targets:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.clone()


def linear(network: BaseNetwork, name: str) -> nn.Linear:
    """Return the linear layer of that name."""
    found = network.decoder.get_submodule(f"model.{name}")
    assert isinstance(found, nn.Linear)  # noqa: S101 - `targets` lists linears only
    return found


def replace(network: BaseNetwork, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the linear layer of that name."""
    parent, _, leaf = f"model.{name}".rpartition(".")
    setattr(network.decoder.get_submodule(parent), leaf, module)

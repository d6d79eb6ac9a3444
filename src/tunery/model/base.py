"""A base model from a local folder in Hugging Face layout: safetensors, no remote code.

Knows no adapter. The decoder and the output layer are kept apart, so that logits are computed
only for the tokens that need them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from tunery.model import attention
from tunery.model.fused import ROUND_ROWS, FusedDecoder
from tunery.model.operations import TORCH, Operations
from tunery.model.trained import TrainedDecoder


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
            out = decoder(
                input_ids=token_ids_T[None],
                position_ids=layout.positions[None],
                use_cache=False,
                layout=layout,
            )
            hidden = out.last_hidden_state[0].to(self.dtype)
        return hidden if rows is None else hidden.index_select(0, rows)


def compute_dtype() -> torch.dtype:
    """Return bfloat16 where this processor multiplies it natively, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def load_base(folder: Path, dtype: torch.dtype) -> BaseNetwork:
    """Load the weights, frozen, in `dtype`."""
    logging.disable_progress_bar()
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=attention.NAME,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    model.requires_grad_(False).eval()
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    # The residual stream is kept in float32: sixty roundings to bfloat16 would be most of the
    # distance to the fp32 reference. Linears and attention still compute in `dtype`.
    model.get_input_embeddings().register_forward_hook(_to_float)
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    targets = tuple(
        f"{prefix}.{name}"
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear)
    )
    if not targets:
        raise ValueError(f"The base in {folder} has no linear layer that LoRA could be put on.")
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return BaseNetwork(
        decoder=Decoder(model, decoder, prefix),
        head=head,
        targets=targets,
        layers=config.num_hidden_layers,
        key_value_heads=config.num_key_value_heads,
        head_size=size,
        context_tokens=config.max_position_embeddings,
        dtype=dtype,
    )


def _to_float(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    del module, inputs
    return output.float()


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

    @property
    def inner(self) -> Any:
        """Return transformers' decoder itself."""
        return self._decoder[0]

    def forward(self, **inputs: Any) -> Any:
        """Run transformers' decoder."""
        return self._decoder[0](**inputs)


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

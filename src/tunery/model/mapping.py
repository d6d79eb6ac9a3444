"""Whether a base of a folder can be computed here: asked before it is entered, of its structure.

The model is made without weights, from its configuration, and run once over shapes: who attends,
what each linear is given, and whether the logits are the output layer's own. So no architecture is
listed here; one is refused for what it does.

Axes: T tokens, H query heads, K key/value heads, D head size.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from tunery.model import attention
from tunery.model.base import BaseNetwork, Unmapped, linear, load_base, network_of
from tunery.model.fused import rotates_alike

_TOKENS = 4
_KINDS = {"full_attention", "sliding_attention"}  # of layers


def check_base(folder: Path) -> None:
    """Raise Unmapped, which says what of it, unless the base can be tuned and served here.

    The weights are looked for, and loaded in the type that they are in.
    """
    logging.set_verbosity_error()
    attention.register()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise Unmapped(f"its config.json is not understood: {_line(error)}") from None
    architecture = ", ".join(config.architectures or [config.model_type])
    try:
        check_structure(config)
        load_base(folder, None)
    except Unmapped as error:
        raise Unmapped(f"{architecture} cannot be tuned here: {error}.") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise Unmapped(f"{architecture} cannot be loaded: {_line(error)}") from None


def check_structure(config: Any) -> None:
    """Raise Unmapped unless a model of this configuration computes what is computed here."""
    if getattr(config, "quantization_config", None) is not None:
        raise Unmapped("its weights are quantized; needed float32, bfloat16 or float16")
    if not rotates_alike(config):
        raise Unmapped("its rotation's angles depend on how long a text is")
    kinds = getattr(config, "layer_types", None)
    if other := sorted(set(kinds or ()) - _KINDS):
        raise Unmapped(f"it has layers of {other[0]}; needed {' or '.join(sorted(_KINDS))}")
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    except (ValueError, KeyError, AttributeError) as error:
        raise Unmapped(f"transformers makes no causal model of it: {_line(error)}") from None
    try:
        watch = _Watch(network_of(model, torch.float32, torch.device("meta")))
        watch.run(model)
    except Unmapped:
        raise
    except attention.NotOurs as error:
        raise Unmapped(f"it has {error}") from None
    except Exception as error:  # anything may be wrong in a model that does other things
        raise Unmapped(f"it does not run over packed texts: {_line(error)}") from None
    watch.check_attention(config, kinds)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


@dataclass
class _Watch:
    """Runs a model without weights, and hears what its parts are given."""

    network: BaseNetwork
    windows: dict[int, int | None] = field(default_factory=dict)  # of each layer that has attended
    given: dict[str, int] = field(default_factory=dict)  # how often each linear was

    def run(self, model: Any) -> None:
        """Run it over shapes; raise Unmapped where something comes between its parts."""
        for name in self.network.targets:
            linear(self.network, name).register_forward_pre_hook(self._hear(name))
        generator = torch.Generator().manual_seed(0)
        inner = self.network.decoder.inner
        width, vocabulary = self.network.head.in_features, self.network.head.out_features
        hidden = torch.randn(1, _TOKENS, width, generator=generator)
        logits = 30 * torch.randn(1, _TOKENS, vocabulary, generator=generator)
        # Numbers stand in for what the decoder and the output layer make of none.
        inner.register_forward_hook(lambda _, __, made: _with_hidden(made, hidden))

        def enter(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            if not torch.equal(inputs[0], hidden):
                raise Unmapped("it changes the hidden states before its output layer")
            return (inputs[0].to("meta"),)

        self.network.head.register_forward_pre_hook(enter)
        self.network.head.register_forward_hook(lambda *_: logits)
        ids = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
        with torch.inference_mode():
            made = model(input_ids=ids, position_ids=ids, use_cache=False, layout=self)
        if not torch.equal(made.logits, logits):
            raise Unmapped("it changes the logits after its output layer")
        for name in self.network.targets:
            if self.given.get(name, 0) != 1:
                raise Unmapped(f"its layer {name} computes {self.given.get(name, 0)} times a pass")

    def attend(
        self,
        layer: int,
        query_HTD: Tensor,
        key_KTD: Tensor,
        value_KTD: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Be the layout of a row: hear which layer attends, and to how much."""
        del scale
        wanted = self.network.key_value_heads, _TOKENS, self.network.head_size
        for heads in (key_KTD, value_KTD):
            if tuple(heads.shape) != wanted:
                raise Unmapped(
                    f"layer {layer} has {heads.shape[0]} key or value heads of {heads.shape[2]}"
                    f" numbers; the configuration tells of {wanted[0]} of {wanted[2]}"
                )
        self.windows[layer] = window
        return query_HTD.new_empty(_TOKENS, query_HTD.shape[0] * query_HTD.shape[2])

    def check_attention(self, config: Any, kinds: list[str] | None) -> None:
        """Raise Unmapped unless every layer has attended as its kind does."""
        window = getattr(config, "sliding_window", None)
        for layer in range(self.network.layers):
            if layer not in self.windows:
                raise Unmapped(f"its layer {layer} mixes tokens by something else than attention")
            slides = window is not None and (kinds is None or kinds[layer] == "sliding_attention")
            if self.windows[layer] != (window if slides else None):
                raise Unmapped(
                    f"layer {layer} attends to {self.windows[layer] or 'all'} tokens;"
                    f" the configuration tells of {window if slides else 'all'}"
                )

    def _hear(self, name: str) -> Any:
        def hear(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if tuple(inputs[0].shape[:-1]) != (1, _TOKENS):
                raise Unmapped(f"its layer {name} is given {tuple(inputs[0].shape)}, not a row")
            self.given[name] = self.given.get(name, 0) + 1

        return hear


def _with_hidden(made: Any, hidden: Tensor) -> Any:
    made.last_hidden_state = hidden
    return made

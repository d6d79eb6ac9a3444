"""Tiny random checkpoints of the families of bases that are tuned and served here.

Each has what sets its family apart, in numbers that no other part of it has: heads in groups, a
head's size that does not follow from the hidden size, output layers of their own and tied ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from support.tiny import CONTEXT, make_byte_tokenizer, make_tiny_model, write_tokenizer

_SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def _qwen2(**common: Any) -> PreTrainedConfig:
    """Biases on queries, keys and values; an output layer of its own."""
    sizes = {"hidden_size": 64, "intermediate_size": 96}
    return Qwen2Config(**common, **_SIZES, **sizes, tie_word_embeddings=False)


def _qwen3(**common: Any) -> PreTrainedConfig:
    """Norms of each query and key head; four heads of 32 numbers over 64; a tied output layer."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
    return Qwen3Config(**common, **_SIZES, **sizes, tie_word_embeddings=True)


def _gemma3(**common: Any) -> PreTrainedConfig:
    """Windows in two of three layers, with another rotation; scaled embedding; one key head."""
    return Gemma3TextConfig(
        **common,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=20,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        tie_word_embeddings=True,
    )


def _mistral(**common: Any) -> PreTrainedConfig:
    """A window in every layer, longer than that of Gemma 3; an output layer of its own."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "sliding_window": 70}
    return MistralConfig(**common, **_SIZES, **sizes, tie_word_embeddings=False)


_CONFIGS: dict[str, Callable[..., PreTrainedConfig]] = {
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma3": _gemma3,
    "mistral": _mistral,
}
FAMILIES = ("llama", *_CONFIGS)


def make_family(folder: Path, family: str, seed: int = 0, context: int = CONTEXT) -> Path:
    """Write a base of the family, with the byte tokenizer, into `folder` and return it."""
    if family == "llama":
        return make_tiny_model(folder, seed)
    tokenizer = make_byte_tokenizer()
    start, end = map(tokenizer.token_to_id, ("<|im_start|>", "<|im_end|>"))
    config = _CONFIGS[family](
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=context,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                parameter.copy_(noise * 0.08)
            else:  # norms, around what they begin with, and biases
                parameter.add_(noise * 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder, tokenizer)
    return folder

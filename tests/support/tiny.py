"""A base model that tests make themselves: a two-layer Llama with a byte tokenizer.

Random weights, a few hundred kilobytes, every part real: transformers loads it, the chat template
renders, the tokenizer round-trips any text.
"""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

CONTEXT = 512
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(folder: Path, seed: int = 0, head_dim: int = 16) -> Path:
    """Write the model into `folder` and return it; the same seed gives the same bytes.

    vLLM's CPU build wants a `head_dim` of 32 or more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_byte_tokenizer()
    end = tokenizer.token_to_id("<|im_end|>")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id("<|im_start|>"),
        eos_token_id=end,
        pad_token_id=end,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.08)
    model.to(torch.bfloat16)
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer)
    return folder


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer and the chat template beside a model's weights."""
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"})
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def make_byte_tokenizer() -> Tokenizer:
    """Return a tokenizer with one id a byte, and the two tokens that frame a turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)]
    )
    return tokenizer

"""A model's folder without weights: tokenizer, configuration and chat template."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from support.tiny import TEMPLATE

SPECIAL = ("<|im_start|>", "<|im_end|>")
_CORPUS = (
    "Hello, how are you today? I am well, thank you.\nThe order has not arrived yet.\n\n"
    "What is the capital of France? It is Paris. I can't help you with that, I'm sorry.",
) * 4


def make_merging_tokenizer() -> Tokenizer:
    """Return a byte-level BPE tokenizer whose tokens are pieces of words, as real ones are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return tokenizer


def write_text_model(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    template: str | None = TEMPLATE,
    tokenizer_config: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    generation_config: dict[str, Any] | None = None,
) -> Path:
    """Write the files that texts need into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    for name, value in (
        ("tokenizer_config.json", named if tokenizer_config is None else tokenizer_config),
        ("config.json", config),
        ("generation_config.json", generation_config),
    ):
        if value is not None:
            (folder / name).write_text(json.dumps(value))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder

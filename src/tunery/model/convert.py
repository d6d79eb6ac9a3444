"""A GGUF file of ours to a folder in Hugging Face layout, dequantized to bfloat16.

Only for files whose SHA-256 is known: no user's GGUF is ever read.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def convert_gguf(gguf: Path, target: Path) -> None:
    """Write config, tokenizer, chat template and safetensors weights into `target`."""
    logging.disable_progress_bar()
    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, local_files_only=True
    )
    # transformers takes a dequantized model for a quantized one and refuses to save it.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)

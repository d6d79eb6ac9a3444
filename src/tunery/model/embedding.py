"""An embedding model from a local folder: a BERT encoder, the mean over a text's tokens, length 1.

Laid out as sentence-transformers does (Reimers and Gurevych, 2019, section 3); safetensors,
float32, no remote code. Knows no tokenizer and no HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertModel
from transformers.utils import logging


@dataclass(frozen=True, slots=True)
class EmbeddingNetwork:
    """A frozen encoder."""

    encoder: Any
    vocabulary: int
    positions: int

    @torch.inference_mode()
    def vectors(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return [B, dimensions] float32 of length 1, a row for each text's token ids."""
        longest = max(map(len, texts))
        ids_BT = torch.zeros(len(texts), longest, dtype=torch.long)
        mask_BT = torch.zeros(len(texts), longest, dtype=torch.long)
        for row, ids in enumerate(texts):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
        hidden_BTD = self.encoder(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        weights_BT1 = mask_BT[:, :, None].to(hidden_BTD.dtype)
        mean_BD = (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)
        return F.normalize(mean_BD, dim=1)


def load_embedding(folder: Path) -> EmbeddingNetwork:
    """Load the weights, frozen, in float32; raise ValueError where some are missing."""
    logging.disable_progress_bar()
    encoder, report = BertModel.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="sdpa",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    # What is missing would be random numbers. The pooler is not: we take the mean without it.
    missing = {str(key) for key in report["missing_keys"] if not str(key).startswith("pooler.")}
    if missing:
        raise ValueError(f"The weights in {folder} lack {', '.join(sorted(missing)[:3])}.")
    encoder.requires_grad_(False).eval()
    encoder.pooler = None
    return EmbeddingNetwork(
        encoder, encoder.config.vocab_size, encoder.config.max_position_embeddings
    )

"""The publishing proof's reference: transformers + PEFT in fp32, as anyone would load the files.

Shares no code with the trainer and the engine: not the attention, not the LoRA linears, not the
reader of adapter files.
"""

import hashlib
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.training import ProofRequest
from tunery.model.device import CPU


class PeftReference:
    """Scores token sequences under published adapters."""

    def __init__(
        self, blobs: BlobStore, base: Path, threads: int, device: torch.device = CPU
    ) -> None:
        self._blobs = blobs
        self._base = base
        self._device = device
        if threads:
            torch.set_num_threads(threads)

    def score(self, request: ProofRequest) -> list[list[list[float]]]:
        """Return log p of each token but the first, [adapter][sequence][token], in nats."""
        logging.disable_progress_bar()
        return [
            self._score_one(adapter.key, adapter.digest, request.token_ids)
            for adapter in request.adapters
        ]

    def _score_one(
        self, key: str, digest: str, token_ids: tuple[tuple[int, ...], ...]
    ) -> list[list[float]]:
        weights = self._blobs.read(f"{key}/adapter_model.safetensors")
        if hashlib.sha256(weights).hexdigest() != digest:
            raise ValueError(f"the adapter at {key} does not have the digest it was saved with")
        settings = json.loads(self._blobs.read(f"{key}/adapter_config.json"))
        config = LoraConfig(**{**settings, "base_model_name_or_path": str(self._base)})
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(
                self._base, dtype=torch.float32, local_files_only=True, trust_remote_code=False
            ),
            config,
        )
        loaded = set_peft_model_state_dict(model, load(weights))
        if loaded.unexpected_keys:
            raise ValueError(f"the base has no place for {loaded.unexpected_keys[0]}")
        model.eval().to(self._device)
        scores = []
        with torch.inference_mode():
            for ids in token_ids:
                row = torch.tensor([ids]).to(self._device)
                logits = model(row, use_cache=False).logits[0, :-1]
                chosen = torch.log_softmax(logits, -1).gather(1, row[0, 1:, None])
                scores.append([float(value) for value in chosen[:, 0].cpu()])
        return scores

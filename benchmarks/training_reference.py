"""transformers + PEFT in fp32: what the training benchmarks hold every trainer to.

The loop is the one that everybody writes: padded batches, the model's own loss, AdamW. It shares no
arithmetic with the trainer. It takes the same examples, order, schedule and first matrices, so that
only arithmetic can make the two differ.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from tunery.datasets.batches import Example
from tunery.datasets.reader import lines, parse
from tunery.datasets.rendering import ChatRenderer

Layers = Mapping[str, tuple[Tensor, Tensor]]  # A [r, K] and B [N, r] of each linear, by its name
_IGNORED = -100  # the label of a token that gives no loss
_EVALUATED = 8  # sequences at a time


def load(base: Path, rank: int, alpha: float) -> Any:
    """Return the base in fp32 with a LoRA of that rank over each of its linears."""
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    config = LoraConfig(
        r=rank, lora_alpha=int(alpha), lora_dropout=0.0, target_modules="all-linear"
    )
    return get_peft_model(model, config)


def install(model: Any, layers: Layers) -> None:
    """Have the model compute with those matrices; every one of its linears needs a pair."""
    expected = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    prefix = "base_model.model."
    if expected != {prefix + name for name in layers}:
        raise ValueError(f"the adapter has {len(layers)} layers; the model {len(expected)} others")
    with torch.no_grad():
        for name, (down, up) in layers.items():
            module = model.get_submodule(prefix + name)
            module.lora_A["default"].weight.copy_(down)
            module.lora_B["default"].weight.copy_(up)


def padded(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Return the model's arguments for a batch, as long as its longest example."""
    longest = max(len(example.token_ids) for example in examples)
    ids, mask, labels = [], [], []
    for example in examples:
        room = longest - len(example.token_ids)
        ids.append(example.token_ids + [0] * room)
        mask.append([1] * len(example.token_ids) + [0] * room)
        learned = zip(example.token_ids, example.supervised, strict=True)
        labels.append([one if own else _IGNORED for one, own in learned] + [_IGNORED] * room)
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


def validation_loss(model: Any, examples: Sequence[Example]) -> float:
    """Return the mean loss over the supervised tokens, in nats."""
    ordered = sorted(examples, key=lambda example: len(example.token_ids))
    total, tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ordered), _EVALUATED):
            batch = ordered[start : start + _EVALUATED]
            learned = sum(example.learned for example in batch)
            total += float(model(**padded(batch)).loss) * learned
            tokens += learned
    return total / tokens


def train(
    model: Any,
    batches: Sequence[Sequence[Example]],
    rates: Sequence[float],
    look: Callable[[int], None],
) -> None:
    """Take one step for each batch, at its rate; call `look` with the steps taken after each."""
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    for step, (batch, rate) in enumerate(zip(batches, rates, strict=True), 1):
        optimizer.param_groups[0]["lr"] = rate
        model(**padded(batch)).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        look(step)


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return the name under which a result is kept: a hash of all that it follows from."""
    whole = {
        **config,
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "machine": platform.machine(),
        "versions": [torch.__version__, transformers.__version__, peft.__version__],
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def examples(chunks: Iterable[bytes], renderer: ChatRenderer, max_tokens: int) -> list[Example]:
    """Return a file's lines as the trainer reads them, all in memory."""
    rendered = [renderer.line(parse(line)) for line in lines(chunks)]
    return [Example(r.token_ids[:max_tokens], r.supervised[:max_tokens]) for r in rendered]

"""One measure of validation loss for all rows: adapters in PEFT's format under an fp32 base.

Prints, as one line of JSON, the loss of each adapter folder on the held-out chats' assistant
tokens, and under "" that of the base alone.
"""

import argparse
import json
from pathlib import Path

from tunery.cli.libraries import quiet_libraries

quiet_libraries()

import torch
import training_reference
from safetensors.torch import load

from tunery.datasets.rendering import ChatRenderer
from tunery.training.adapter import ALPHA, RANK

_PREFIX = "base_model.model."


def layers(folder: Path) -> training_reference.Layers:
    """Return an adapter file's matrices."""
    tensors = load((folder / "adapter_model.safetensors").read_bytes())
    names = [name.removesuffix(".lora_A.weight") for name in tensors if ".lora_A." in name]
    return {
        name.removeprefix(_PREFIX): (
            tensors[f"{name}.lora_A.weight"],
            tensors[f"{name}.lora_B.weight"],
        )
        for name in names
    }


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--examples", type=int, required=True, help="how many of them")
    parser.add_argument("adapters", type=Path, nargs="*")
    options = parser.parse_args()
    lines = options.held_out.read_bytes().splitlines(keepends=True)[: options.examples]
    renderer = ChatRenderer.load(options.base)
    model = training_reference.load(options.base, RANK, ALPHA)
    examples = training_reference.examples(lines, renderer, model.config.max_position_embeddings)
    with torch.no_grad():  # B is zero yet: the base alone
        losses = {"": training_reference.validation_loss(model, examples)}
    for folder in options.adapters:
        training_reference.install(model, layers(folder))
        losses[str(folder)] = training_reference.validation_loss(model, examples)
    print(json.dumps(losses))


if __name__ == "__main__":
    main()

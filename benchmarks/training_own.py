"""This trainer for the training benchmark: whole, or with one of its tricks switched off.

`SWITCHES` lists the tricks. Each switch puts something plainer in the place of what the trainer
calls, in this process only, and refuses to run where that is not found any more. The trainer itself
is driven as the worker's child drives it: a run goes in, reports come out, and after the last step
that is wanted it is asked to pause. Prints one line of JSON.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunery.cli.libraries import RUN_SPINS, quiet_libraries

quiet_libraries(RUN_SPINS)  # before torch is imported, as the worker's child does

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor
from training_work import Step, peak_bytes

from tunery.datasets.batches import Example
from tunery.domain.jobs import Hyperparameters, Snapshot, StepMetrics
from tunery.domain.models import BaseModel
from tunery.domain.ports.training import RunFailed, RunStarted, TrainingReport, TrainingRun
from tunery.model import adapter_file, operations, packed
from tunery.model.base import BaseNetwork
from tunery.model.device import CPU
from tunery.settings import Settings
from tunery.storage.blobs import LocalBlobStore
from tunery.training import adapter, loop, methods, packing, sft
from tunery.training.cache_folder import CacheFolder
from tunery.training.losses import Loss
from tunery.wiring.storage import native_folder, open_directory

BatchLoss = Callable[[BaseNetwork, Sequence[Example]], Loss | None]
_IGNORED = -100


def called(owner: Any, name: str) -> Any:
    """Return what the trainer calls by that name."""
    if not hasattr(owner, name):
        sys.exit(f"training_own: {owner.__name__} has no {name} any more; mend the switch.")
    return getattr(owner, name)


def swap(owner: Any, name: str, value: Any) -> None:
    """Put `value` in the place of what the trainer calls by that name."""
    called(owner, name)
    setattr(owner, name, value)


class Counter:
    """What is really computed in the step in progress."""

    def __init__(self) -> None:
        self.step = Step()


COUNTER = Counter()


# ---- the switches


def without_bf16() -> None:
    """Base, activations and products in float32."""
    swap(loop, "compute_dtype", lambda device: torch.float32)


def without_supervised_logits() -> None:
    """Logits of every token, made at once and kept for the backward pass by autograd."""

    def batch_loss(network: BaseNetwork, examples: Sequence[Example]) -> Loss:
        layout = packed.PackedLayout([len(one.token_ids) for one in examples], network.dtype)
        token_ids, targets = list[int](), list[int]()
        for one in examples:
            token_ids += one.token_ids
            learned = zip(one.token_ids[1:], one.supervised[1:], strict=True)
            targets += [*(token if own else _IGNORED for token, own in learned), _IGNORED]
        padding = [0] * layout.padding
        hidden = network.hidden(torch.tensor(token_ids + padding), layout)
        logits = (hidden @ network.head.weight.t()).float()
        COUNTER.step.logits += logits.shape[0]
        wanted = torch.tensor(targets + [_IGNORED] * layout.padding)
        mean = F.cross_entropy(logits, wanted, ignore_index=_IGNORED)
        return Loss(mean, int((logits.argmax(-1) == wanted).sum()))

    swap(methods, "batch_loss", batch_loss)


def without_length_sort() -> None:
    """Examples in shuffled order, whatever their lengths."""

    def shuffled(
        lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int
    ) -> list[list[int]]:
        order = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    swap(loop, "epoch_batches", shuffled)


def without_packing() -> None:
    """Examples padded to the longest of their batch, in the linears too."""
    plain: BatchLoss = called(methods, "batch_loss")

    def padded(network: BaseNetwork, examples: Sequence[Example]) -> Loss | None:
        longest = max(len(one.token_ids) for one in examples)
        rooms = [longest - len(one.token_ids) for one in examples]
        return plain(
            network,
            [
                Example(one.token_ids + [0] * room, one.supervised + [False] * room)
                for one, room in zip(examples, rooms, strict=True)
            ],
        )

    swap(methods, "batch_loss", padded)


def without_sharing() -> None:
    """What a batch begins with is computed for each of its examples."""
    swap(packing, "shared_tokens", lambda texts: 0)


def without_fused_layers() -> None:
    """Layers as transformers computes them, module by module."""
    swap(adapter, "fusable", lambda config: False)


def without_native_operations() -> None:
    """What stands between products computed in torch, an operation at a time."""
    swap(loop, "operations_for", lambda *choice: operations.TORCH)


def without_grouped_attention() -> None:
    """Attention by torch's scaled_dot_product_attention at every length, not by our products."""
    swap(packed, "_LONG", 0)


SWITCHES: dict[str, Callable[[], None]] = {
    "bf16": without_bf16,
    "supervised-logits": without_supervised_logits,
    "length-sort": without_length_sort,
    "packing": without_packing,
    "sharing": without_sharing,
    "fused-layers": without_fused_layers,
    "native-operations": without_native_operations,
    "grouped-attention": without_grouped_attention,
}


def count() -> None:
    """Count every batch on its way through the trainer; call it after the switches."""
    loss: BatchLoss = called(methods, "batch_loss")
    hidden = called(BaseNetwork, "hidden")
    logits = called(sft, "supervised_loss")

    def counted_loss(network: BaseNetwork, examples: Sequence[Example]) -> Loss | None:
        COUNTER.step.tokens += sum(len(one.token_ids) for one in examples)
        COUNTER.step.supervised += sum(one.learned for one in examples)
        return loss(network, examples)

    def counted_hidden(
        network: BaseNetwork, token_ids: Tensor, layout: Any, rows: Tensor | None = None
    ) -> Tensor:
        COUNTER.step.computed += token_ids.shape[0]
        if rows is not None and network.decoder.trained is not None:
            COUNTER.step.left_out += token_ids.shape[0] - rows.shape[0]
        seen = layout.shared + layout.longest
        COUNTER.step.squares += layout.sequences * layout.longest * seen + layout.shared**2
        found: Tensor = hidden(network, token_ids, layout, rows)
        return found

    def counted_logits(hidden: Tensor, *others: Any) -> Loss:
        COUNTER.step.logits += hidden.shape[0]
        found: Loss = logits(hidden, *others)
        return found

    swap(methods, "batch_loss", counted_loss)
    swap(BaseNetwork, "hidden", counted_hidden)
    swap(sft, "supervised_loss", counted_logits)


# ---- the run


def measure(options: argparse.Namespace, base: BaseModel, blobs: LocalBlobStore) -> dict[str, Any]:
    """Train, and return what each step took and computed."""
    blobs.put("train.jsonl", options.data.read_bytes())
    steps: list[Step] = []
    snapshots: list[Snapshot] = []
    last, last_used = 0.0, 0.0

    def report(value: TrainingReport) -> None:
        nonlocal last, last_used
        if isinstance(value, RunFailed):
            sys.exit(f"training_own: {value.message}")
        if isinstance(value, Snapshot):
            snapshots.append(value)
        if isinstance(value, RunStarted | StepMetrics):
            now, used = time.perf_counter(), time.process_time()
            if isinstance(value, StepMetrics):
                COUNTER.step.seconds, COUNTER.step.processor_s = now - last, used - last_used
                steps.append(COUNTER.step)
            last, last_used, COUNTER.step = now, used, Step()

    run = TrainingRun(
        job_id="ftjob-speed",
        base=base.name,
        base_digest=base.digest,
        training_key="train.jsonl",
        validation_key=None,
        hyperparameters=Hyperparameters(1, options.batch, 1.0),
        seed=options.seed,
        output_prefix="attempt-1",
    )
    caches = CacheFolder(options.out.with_name(f"{options.out.name}-caches"), 2**30)
    trainer = loop.LocalTrainer(
        blobs, Path(base.path), base.learning_rate, 0, 1e9, caches, native_folder(Settings())
    )
    trainer.train(run, report, lambda: len(steps) >= options.steps)
    most = peak_bytes()
    save(blobs.read(snapshots[-1].key), base, options.out)
    return {
        "steps": [asdict(step) for step in steps],
        "peak_bytes": most,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__},
    }


def save(snapshot: bytes, base: BaseModel, folder: Path) -> None:
    """Write a snapshot's adapter as it would be published."""
    tensors, dtype = load(snapshot), called(loop, "compute_dtype")(CPU)
    names = [name.removesuffix(".down") for name in tensors if name.endswith(".down")]
    weights = adapter_file.AdapterWeights(
        adapter.RANK,
        adapter.ALPHA,
        {n: (tensors[f"{n}.down"].to(dtype), tensors[f"{n}.up"].to(dtype)) for n in names},
    )
    files = adapter_file.write(weights, base.name)
    folder.mkdir(parents=True)
    for name, data in zip((adapter_file.WEIGHTS, adapter_file.CONFIG), files, strict=True):
        (folder / name).write_bytes(data)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", choices=SWITCHES, help="the trick that is switched off")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the adapter goes")
    for name in ("--batch", "--steps", "--seed"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    if options.without is not None:
        SWITCHES[options.without]()
    count()
    with tempfile.TemporaryDirectory() as folder:
        blobs = LocalBlobStore(Path(folder))
        print(json.dumps(measure(options, open_directory(Settings()).base(), blobs)))


if __name__ == "__main__":
    main()

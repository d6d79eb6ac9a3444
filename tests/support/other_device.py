"""A device that stands for a GPU: its tensors' numbers are this processor's, but not their place.

An operation that is given tensors of both places fails, as it would on a GPU; single numbers of the
processor may take part, as they may there. What is computed is what the processor computes.

Run as `python -m support.other_device MODEL FOLDER` it trains there, and prints what came of it. A
process of its own has to: torch counts its devices once.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from support.networks import random_adapter, store
from support.training_runs import ALWAYS, TOY, of, put, put_pairs, train
from tunery.domain.jobs import EpochCheckpoint, Snapshot, StepMetrics
from tunery.domain.ports.training import ProofRequest, TrainingReport
from tunery.storage.blobs import LocalBlobStore
from tunery.training.reference import PeftReference

DEVICE = "elsewhere"
_COPY, _MOVE = torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default


class Elsewhere(Tensor):
    """A tensor of the other device, and the one of this processor that has its numbers."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "Elsewhere":
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device(DEVICE, 0),
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares what turns it off
        cls,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _computed(function, args, kwargs or {})


class _Making(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees to it that tensors which are asked for there are made there."""

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _computed(function, args, kwargs or {})


def _computed(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Compute with the numbers, and say where the outcome is."""
    given = tree_leaves((args, dict(kwargs)))
    theirs = [one for one in given if isinstance(one, Elsewhere)]
    ours = [one for one in given if isinstance(one, Tensor) and not isinstance(one, Elsewhere)]
    if theirs and any(one.dim() for one in ours) and function not in (_COPY, _MOVE):
        raise RuntimeError(f"{function}: tensors of this processor and of {DEVICE} in one")
    wanted = [one for one in given if isinstance(one, torch.device)]
    if wanted:
        goes = wanted[0].type == DEVICE
    else:
        goes = isinstance(args[0], Elsewhere) if function is _COPY else bool(theirs)
    plain = tree_map_only(Elsewhere, lambda one: one.numbers, (tuple(args), dict(kwargs)))
    plain_args, plain_kwargs = tree_map_only(torch.device, lambda _: torch.device("cpu"), plain)
    out = function(*plain_args, **plain_kwargs)
    if not goes:
        return out
    out = tree_map_only(Tensor, Elsewhere, out)
    if not theirs:
        return out
    return return_and_correct_aliasing(  # type: ignore[no-untyped-call]
        function, tuple(args), dict(kwargs), out
    )


@contextmanager
def other_device() -> Iterator[torch.device]:
    """Make the device known to torch, for good; tensors are made there in this context."""
    _setup_privateuseone_for_python_backend(DEVICE)
    with _Making():  # type: ignore[no-untyped-call]
        yield torch.device(DEVICE, 0)


def _told(reports: Sequence[TrainingReport]) -> dict[str, Any]:
    """Return the numbers of every step, and the digests of the adapters."""
    return {
        "steps": of(reports, StepMetrics),
        "digests": [one.adapter.digest for one in of(reports, EpochCheckpoint)],
    }


def _mixes(device: torch.device) -> bool:
    """Return whether an operation takes tensors of both places."""
    try:
        torch.ones(2).to(device) + torch.ones(2)
    except RuntimeError:
        return False
    return True


def main(model: Path, folder: Path) -> dict[str, Any]:
    """Train and score there: whole, interrupted and gone on, and from pairs."""
    blobs = LocalBlobStore(folder)
    put(blobs, "train", TOY)
    put(blobs, "held", TOY[:3])
    found: dict[str, Any] = {}
    with other_device() as device:
        found["mixes"] = _mixes(device)
        found["whole"] = _told(train(blobs, model, "a", validation_key="held", device=device))
        stopped = train(
            blobs, model, "b", snapshot_s=ALWAYS, pause_at=3, validation_key="held", device=device
        )
        snapshot = of(stopped, Snapshot)[-1]
        found["gone on"] = _told(
            train(blobs, model, "c", validation_key="held", resume_from=snapshot, device=device)
        )
        put_pairs(blobs, "train", 7)
        found["pairs"] = _told(train(blobs, model, "d", beta=0.2, device=device))
        adapter = store(blobs, "e", random_adapter(model, 1))
        request = ProofRequest("tiny", "b" * 64, (adapter,), ((1, 2, 3, 4, 5),))
        found["scores"] = PeftReference(blobs, model, 1, device).score(request)
    return found


if __name__ == "__main__":
    print(orjson.dumps(main(*map(Path, sys.argv[1:]))).decode())

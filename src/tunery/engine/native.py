"""Has the engine compute with native operations: at once where they are built, else once they are.

Building takes half a minute in a process of its own, while the engine already answers. Eight bits
are a lossy form: they are taken only where they stay close to bfloat16.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tunery.engine.scheduler import Head, Scheduler
from tunery.model import native
from tunery.model.base import BaseNetwork
from tunery.model.cached import CachedLayout, SlotCache
from tunery.model.fused import FusedDecoder
from tunery.model.memory import give_back
from tunery.telemetry import logger

_PROBE_TOKENS = 64


def adopt(
    scheduler: Scheduler,
    network: BaseNetwork,
    folder: Path,
    *,
    eight_bits: bool,
    most_apart: float,
    tell: Callable[[str], None],
) -> None:
    """Have native operations used as soon as they can be; call it on the scheduler's thread.

    `folder` keeps what is compiled. `most_apart` is how far, on average, eight bits may take a
    log-probability from where bfloat16 has it. `tell` hears what is computed in from then on.
    """
    decoder = network.decoder.fused
    if decoder is None or not decoder.takes_native():
        logger().info("native operations do not fit this base; it is computed in torch")
        return

    def use(path: Path) -> None:
        try:
            native.load(path)
        except native.NotBuilt as error:
            logger().warning("native operations are not used", reason=str(error))
            return
        heads = {eight: scheduler.native_head(eight_bits=eight) for eight in {False, eight_bits}}
        eight = eight_bits and _stay_close(network, decoder, heads, most_apart)
        if not eight:
            decoder.use_native(eight_bits=False)
        scheduler.use_head(heads[eight])
        if eight:
            decoder.keep_eight_bits_only()
            scheduler.adapters.count_again()
        give_back()
        tell("native-int8" if eight else "native-bfloat16")
        logger().info("native operations are used", eight_bits=eight)

    path = native.built(folder)
    if path is not None:
        use(path)
    else:
        _build_beside(folder, lambda made: scheduler.call(lambda: use(made)))


def _build_beside(folder: Path, use: Callable[[Path], None]) -> None:
    def build() -> None:
        try:
            use(native.build(folder))
        except (native.NotBuilt, OSError) as error:
            logger().info("native operations are not built", reason=str(error))

    threading.Thread(target=build, name="native build", daemon=True).start()


def _stay_close(
    network: BaseNetwork, decoder: FusedDecoder, heads: Mapping[bool, Head], most_apart: float
) -> bool:
    """Return whether eight bits keep a fixed text's log-probabilities, output layer included.

    The decoder computes in eight bits afterwards.
    """
    vocabulary = network.head.weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (_PROBE_TOKENS,), generator=generator)

    def logprobs(*, eight_bits: bool) -> Tensor:
        decoder.use_native(eight_bits=eight_bits)
        shape = (network.key_value_heads, _PROBE_TOKENS, network.head_size)
        cache = SlotCache(network.layers, 1, *shape, network.dtype)
        layout = CachedLayout(cache, [], [(0, _PROBE_TOKENS)], list(range(_PROBE_TOKENS)), 0)
        decoder.rows.select([-1] * _PROBE_TOKENS)
        return torch.log_softmax(heads[eight_bits](network.hidden(ids, layout)), -1)

    with torch.inference_mode():
        wanted = logprobs(eight_bits=False)
        likely = wanted.argmax(-1, keepdim=True)
        apart = float((logprobs(eight_bits=True) - wanted).gather(1, likely).abs().mean())
    close = apart <= most_apart  # a NaN is not
    if not close:
        logger().warning("eight bits are not used: too far apart", logprobs=apart)
    return close

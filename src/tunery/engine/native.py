"""Has the engine compute with native operations: at once where they are built, else once they are.

Building takes half a minute in a process of its own, while the engine already answers. Eight-bit
weights are a lossy form: they are taken only where they stay close to the bfloat16 ones.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import torch

from tunery.engine.scheduler import Scheduler
from tunery.model import native
from tunery.model.attention import CachedLayout, SlotCache
from tunery.model.base import BaseNetwork
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
) -> None:
    """Have native operations used as soon as they can be; call it on the scheduler's thread.

    `folder` keeps what is compiled. `most_apart` is how far, on average, eight-bit weights may take
    a log-probability from where bfloat16 ones have it.
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
        decoder.use_native(eight_bits=False)
        eight = eight_bits and _stay_close(network, decoder, most_apart)
        scheduler.use_native_head(eight_bits=eight)
        if eight:
            decoder.keep_eight_bits_only()
        give_back()
        logger().info("native operations are used", eight_bit_weights=eight)

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


def _stay_close(network: BaseNetwork, decoder: FusedDecoder, most_apart: float) -> bool:
    """Use eight-bit weights if they keep a fixed text's log-probabilities; return whether."""
    vocabulary = network.head.weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (_PROBE_TOKENS,), generator=generator)

    def logprobs() -> torch.Tensor:
        shape = (network.key_value_heads, _PROBE_TOKENS, network.head_size)
        cache = SlotCache(network.layers, 1, *shape, network.dtype)
        layout = CachedLayout(cache, [], [(0, _PROBE_TOKENS)], list(range(_PROBE_TOKENS)), 0)
        decoder.rows.select([-1] * _PROBE_TOKENS)
        return torch.log_softmax(network.head(network.hidden(ids, layout)).float(), -1)

    with torch.inference_mode():
        wanted = logprobs()
        likely = wanted.argmax(-1, keepdim=True)
        decoder.use_native(eight_bits=True)
        apart = float((logprobs() - wanted).gather(1, likely).abs().mean())
    if apart > most_apart:
        decoder.use_native(eight_bits=False)
        logger().warning("eight-bit weights are not used: too far apart", logprobs=apart)
    return apart <= most_apart

"""An engine in this process, in one form of its arithmetic, driven step by step by benchmarks."""

import math
from pathlib import Path

from tunery.engine.adapters import AdapterStack
from tunery.engine.native import adopt
from tunery.engine.scheduler import Scheduler
from tunery.engine.seats import Limits
from tunery.model import native
from tunery.model.base import compute_dtype, load_base
from tunery.settings import Settings
from tunery.wiring.storage import native_folder, open_directory, renderer_of

FORMS = ("torch", "native", "eight")


def engine(settings: Settings, form: str, places: int, limits: Limits) -> Scheduler:
    """Return a scheduler that computes in that form, however far that is from another."""
    base = open_directory(settings).base()
    network = load_base(Path(base.path), compute_dtype())
    stack = AdapterStack(network, places, settings.engine.max_rank, 2**30)
    scheduler = Scheduler(network, stack, renderer_of(base).tokenizer, limits)
    if form != "torch":
        folder = native.build(native_folder(settings)).parent
        adopt(
            scheduler,
            network,
            folder,
            eight_bits=form == "eight",
            most_apart=math.inf,
            tell=lambda arithmetic: None,
        )
    scheduler.warm_up()
    return scheduler

"""Has torch and its companions behave beside others, before they are imported."""

import os
import warnings

_SPINS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}


def quiet_libraries() -> None:
    """Turn off progress bars, hub look-ups and other libraries' advice to their developers.

    A compute thread that waits for its fellows spins for a tenth of a millisecond, then sleeps.
    Spinning for three, as OpenMP does by default, takes from the very threads that are waited for,
    once two processes want the same cores: an answer beside a training run then took minutes. Not
    to spin at all takes a third of its speed from an engine that has the cores for itself. Who sets
    one of OpenMP's own variables decides otherwise.
    """
    if not _SPINS.keys() & os.environ.keys():
        os.environ.update(_SPINS)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for category in (UserWarning, FutureWarning):
        warnings.simplefilter("ignore", category)

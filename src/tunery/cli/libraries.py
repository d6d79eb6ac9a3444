"""Has torch and its companions behave beside others, before they are imported."""

import os
import warnings

ENGINE_SPINS = 10_000  # a tenth of a millisecond
# Kept on half of the cores, a run's threads wait for one that cannot run until they sleep. On two
# cores a run made, of its 1.2 steps a second alone: 0.2 beside answers at 10,000, 0.5 at 1,000,
# 0.7 at none; but alone 1.05 at 1,000 and 0.86 at none.
RUN_SPINS = 500


def quiet_libraries(spins: int = ENGINE_SPINS) -> None:
    """Turn off progress bars, hub look-ups and other libraries' advice to their developers.

    Call it before torch is imported, which reads then how its threads are to wait. One that waits
    for its fellows spins for so many rounds, then sleeps. To spin for three milliseconds, as OpenMP
    does by default, takes from the very threads that are waited for,
    once two processes want the same cores: an answer beside a training run then took minutes. Not
    to spin at all takes a third of its speed from an engine that has the cores for itself. Who sets
    one of OpenMP's own variables decides otherwise.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(spins)}
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for category in (UserWarning, FutureWarning):
        warnings.simplefilter("ignore", category)

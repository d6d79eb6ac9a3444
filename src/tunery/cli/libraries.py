"""Has torch and its companions behave beside others, before they are imported."""

import os
import warnings


def quiet_libraries() -> None:
    """Turn off progress bars, hub look-ups and other libraries' advice to their developers.

    A compute thread that waits for its fellows sleeps. Spinning, as OpenMP does by default, takes
    from the very threads that are waited for, once two processes want the same cores: an answer
    beside a training run then took minutes. OMP_WAIT_POLICY=active asks for it nevertheless.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for category in (UserWarning, FutureWarning):
        warnings.simplefilter("ignore", category)

"""Has torch's companions keep quiet and off the network, before they are imported."""

import os
import warnings


def quiet_libraries() -> None:
    """Turn off progress bars, hub look-ups and other libraries' advice to their developers."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for category in (UserWarning, FutureWarning):
        warnings.simplefilter("ignore", category)

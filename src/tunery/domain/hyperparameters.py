"""What "auto" becomes: a function of the request and the number of examples."""

from tunery.domain.jobs import Hyperparameters, RequestedHyperparameters

MAX_EPOCHS, MAX_BATCH = 50, 256
_STEPS_WANTED = 120


def resolve(requested: RequestedHyperparameters, examples: int) -> Hyperparameters:
    """Return the numbers to train with.

    Auto is chosen by measurement on small bases (`benchmarks/auto.py` prints the table), within
    OpenAI's ranges: batches of 8, and as many epochs as give about 120 steps, from 1 to 25.
    """
    batch_size = requested.batch_size
    if batch_size == "auto":
        batch_size = max(1, min(8, examples))
    n_epochs = requested.n_epochs
    if n_epochs == "auto":
        n_epochs = max(1, min(25, round(_STEPS_WANTED * batch_size / examples)))
    multiplier = requested.learning_rate_multiplier
    return Hyperparameters(
        n_epochs=n_epochs,
        batch_size=min(batch_size, MAX_BATCH),
        learning_rate_multiplier=1.0 if multiplier == "auto" else multiplier,
    )

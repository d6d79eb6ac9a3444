"""What "auto" becomes: a function of the request and the number of examples."""

from tunery.domain.jobs import Hyperparameters, RequestedHyperparameters, TrainingMethod

_STEPS_WANTED = 80
_BETA = 0.1  # Rafailov et al. 2023, appendix B
MULTIPLIERS = {TrainingMethod.SUPERVISED: 1.0, TrainingMethod.DPO: 0.2}


def resolve(
    requested: RequestedHyperparameters,
    examples: int,
    method: TrainingMethod = TrainingMethod.SUPERVISED,
) -> Hyperparameters:
    """Return the numbers to train with.

    Auto is chosen for small bases, within OpenAI's ranges: batches of 8, and as many epochs as
    give about 80 steps, from 1 to 25. On the quickstart's data that is two epochs. Preferences are
    learned at a fifth of the rate: their loss has no floor that would hold the weights back.
    """
    batch_size, n_epochs = requested.batch_size, requested.n_epochs
    multiplier = requested.learning_rate_multiplier
    size = max(1, min(8, examples)) if isinstance(batch_size, str) else batch_size
    wanted = max(1, min(25, round(_STEPS_WANTED * size / examples)))
    return Hyperparameters(
        n_epochs=wanted if isinstance(n_epochs, str) else n_epochs,
        batch_size=size,
        learning_rate_multiplier=MULTIPLIERS[method] if isinstance(multiplier, str) else multiplier,
        beta=_BETA if requested.beta == "auto" else requested.beta,
    )

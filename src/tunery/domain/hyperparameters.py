"""What "auto" becomes: a function of the request and the number of examples."""

from tunery.domain.jobs import Hyperparameters, RequestedHyperparameters, TrainingMethod

_BETA = 0.1  # Rafailov et al. 2023, appendix B
_STEPS = {TrainingMethod.SUPERVISED: 80, TrainingMethod.DPO: 40}
_MULTIPLIERS = {TrainingMethod.SUPERVISED: 1.0, TrainingMethod.DPO: 0.2}


def resolve(
    requested: RequestedHyperparameters,
    examples: int,
    method: TrainingMethod = TrainingMethod.SUPERVISED,
) -> Hyperparameters:
    """Return the numbers to train with.

    Auto is chosen for small bases, within OpenAI's ranges: batches of 8, and as many epochs as
    give about 80 steps, from 1 to 25. On the quickstart's data that is two epochs. Preferences are
    learned in half the steps at a fifth of the rate: nothing in their loss holds the weights back
    once the pairs are told apart.
    """
    batch_size, n_epochs = requested.batch_size, requested.n_epochs
    multiplier = requested.learning_rate_multiplier
    size = max(1, min(8, examples)) if isinstance(batch_size, str) else batch_size
    wanted = max(1, min(25, round(_STEPS[method] * size / examples)))
    return Hyperparameters(
        n_epochs=wanted if isinstance(n_epochs, str) else n_epochs,
        batch_size=size,
        learning_rate_multiplier=_MULTIPLIERS[method]
        if isinstance(multiplier, str)
        else multiplier,
        beta=_BETA if requested.beta == "auto" else requested.beta,
    )

"""Moderations."""

from tunery.domain.errors import InvalidRequest, NotFound
from tunery.domain.moderation import DEFAULT_MODEL, MODELS, TEXT_MODELS, Verdict
from tunery.protocol.moderations import (
    CreateModerationRequest,
    Moderation,
    ModerationDetails,
    ModerationImage,
)


def from_wire_model(request: CreateModerationRequest) -> str:
    """Return the model that is asked; raise NotFound for one that is none of OpenAI's."""
    model = DEFAULT_MODEL if request.model is None else request.model
    if model not in MODELS:
        raise NotFound(
            f"The model `{model[:200]}` does not exist or you do not have access to it; use one of"
            f" {', '.join(MODELS)}.",
            code="model_not_found",
        )
    return model


def count_results(request: CreateModerationRequest, model: str) -> int:
    """Return how many verdicts are due: one a string, one for a list of parts.

    Raises InvalidRequest for an image where the model takes text alone.
    """
    if isinstance(request.input, str):
        return 1
    for number, part in enumerate(request.input):
        if isinstance(part, ModerationImage) and model in TEXT_MODELS:
            raise InvalidRequest(
                f"Invalid value for 'input.{number}.type': {model} takes text only; use"
                f" {DEFAULT_MODEL}.",
                param=f"input.{number}.type",
                code="invalid_value",
            )
    return len(request.input) if isinstance(request.input[0], str) else 1


def to_wire_moderation(verdict: Verdict) -> Moderation:
    """Return a verdict as OpenAI writes it."""
    return Moderation(
        flagged=any(verdict.flagged.values()),
        categories=dict(verdict.flagged),
        category_scores=dict(verdict.scores),
        category_applied_input_types={
            category: list(types) for category, types in verdict.applied_to.items()
        },
        tunery=ModerationDetails(judged=verdict.judged),
    )

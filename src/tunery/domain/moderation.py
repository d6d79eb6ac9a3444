"""The categories that content is judged by, and a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
MODELS = (
    "omni-moderation-latest",
    "omni-moderation-2024-09-26",
    "text-moderation-latest",
    "text-moderation-stable",
    "text-moderation-007",
)
DEFAULT_MODEL = MODELS[0]
TEXT_MODELS = MODELS[2:]  # these take no images

InputType = Literal["text", "image"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score of 0 to 1 for each category, whether it is reached, and on which inputs it rests.

    A category that rests on no input was not judged: its score says nothing.
    """

    scores: Mapping[str, float]
    flagged: Mapping[str, bool]
    applied_to: Mapping[str, tuple[InputType, ...]]

    @property
    def judged(self) -> bool:
        """Return whether any category was judged."""
        return any(self.applied_to.values())


UNJUDGED = Verdict(
    scores=dict.fromkeys(CATEGORIES, 0.0),
    flagged=dict.fromkeys(CATEGORIES, False),
    applied_to=dict.fromkeys(CATEGORIES, ()),
)

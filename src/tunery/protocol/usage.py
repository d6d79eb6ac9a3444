"""Tokens on the wire."""

from tunery.protocol.base import Response


class PromptTokensDetails(Response):
    """Where the prompt's tokens came from."""

    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(Response):
    """What the answer's tokens were."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(Response):
    """Tokens billed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()

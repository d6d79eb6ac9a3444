"""Text that is to be gone on from: its model is found, and its tokens are counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunery.datasets.rendering import ChatRenderer
from tunery.domain.errors import ContextTooLong, InvalidRequest
from tunery.domain.models import BaseModel
from tunery.domain.tenants import Tenant
from tunery.domain.usage import UsageKind
from tunery.services.answers import Options, PreparedAnswer, generations_of
from tunery.services.known_models import KnownModels


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What is asked, after the edge has checked its shape: `options` for each of the prompts."""

    model: str
    prompts: Sequence[str | Sequence[int]]
    options: Options
    end_user: str | None


def prepare_completion(
    models: KnownModels,
    renderers: Callable[[BaseModel], ChatRenderer],
    engine_context_tokens: int,
    tenant: Tenant,
    request: CompletionRequest,
) -> PreparedAnswer:
    """Find the model and tokenize the prompts, with no template; refuse what cannot be done."""
    model = models.find(tenant, request.model)
    if model is None:
        raise models.refusal(tenant, request.model, "a completion", "v1/completions")
    tokenizer = renderers(model.base).tokenizer
    context = min(model.base.context_tokens, engine_context_tokens)
    prompts = []
    for prompt in request.prompts:
        if isinstance(prompt, str):
            fewest = len(prompt) // tokenizer.longest_token  # tokens that it has at the least
            if fewest > context:  # refused before the work of counting exactly
                raise ContextTooLong(context, fewest, request.options.max_tokens or 1)
            ids = tokenizer.prompt_ids(prompt)
        else:
            ids = list(prompt)
            if max(ids) >= tokenizer.vocabulary:
                raise InvalidRequest(
                    f"Invalid value for 'prompt': token id {max(ids)}; this model's ids are below"
                    f" {tokenizer.vocabulary}.",
                    param="prompt",
                    code="invalid_value",
                )
        prompts.append(ids)
    return PreparedAnswer(
        generations=tuple(
            generation
            for ids in prompts
            for generation in generations_of(
                model,
                ids,
                request.options,
                tenant=tenant,
                context_tokens=context,
                vocabulary=tokenizer.vocabulary,
            )
        ),
        model=model,
        kind=UsageKind.COMPLETION,
        prompt_tokens=sum(map(len, prompts)),
        end_user=request.end_user,
    )

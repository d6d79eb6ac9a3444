"""A conversation that is to be answered: its model is found, and its prompt rendered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunery.datasets.rendering import ChatRenderer, plain_text
from tunery.domain.errors import ContextTooLong
from tunery.domain.models import BaseModel
from tunery.domain.ports.engine import Generation
from tunery.domain.tenants import Tenant
from tunery.domain.usage import UsageKind
from tunery.services.answers import PreparedAnswer, choices_of
from tunery.services.models import ModelDirectory, unknown_model
from tunery.storage.database import Database


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked, after the edge has checked its shape."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    max_tokens: int | None
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None
    n: int
    end_user: str | None


def prepare_chat(
    database: Database,
    directory: ModelDirectory,
    renderers: Callable[[BaseModel], ChatRenderer],
    engine_context_tokens: int,
    tenant: Tenant,
    request: ChatRequest,
) -> PreparedAnswer:
    """Find the model and render the conversation; all that can be refused is refused here."""
    with database.read() as tx:
        model = directory.find(tx, tenant, request.model)
    if model is None:
        raise unknown_model(request.model)
    renderer = renderers(model.base)
    context = min(model.base.context_tokens, engine_context_tokens)
    characters = sum(len(plain_text(message["content"])) for message in request.messages)
    fewest = characters // renderer.tokenizer.longest_token  # tokens that it has at the least
    if fewest > context:  # refused before the work of counting exactly
        raise ContextTooLong(context, fewest, request.max_tokens or 1)
    prompt_ids = renderer.prompt(request.messages)
    max_tokens = request.max_tokens
    if max_tokens is None:
        max_tokens = context - len(prompt_ids)
    if max_tokens < 1 or len(prompt_ids) + max_tokens > context:
        raise ContextTooLong(context, len(prompt_ids), request.max_tokens or 1)
    generation = Generation(
        prompt_ids=prompt_ids,
        base_digest=model.base.digest,
        adapter=None if model.tuned is None else model.tuned.adapter,
        max_tokens=max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        stop=request.stop,
        seed=request.seed,
    )
    return PreparedAnswer(
        generations=choices_of([generation], request.n),
        model=model,
        kind=UsageKind.CHAT,
        prompt_tokens=len(prompt_ids),
        end_user=request.end_user,
    )

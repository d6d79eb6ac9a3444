"""A conversation that is to be answered: its model is found, and its prompt rendered."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tunery.datasets.conversation import least_length
from tunery.datasets.heard import Reading
from tunery.datasets.rendering import ChatRenderer
from tunery.datasets.schema_faults import fault_of
from tunery.datasets.tools import ANY_OBJECT, Calling, schema_grammar
from tunery.domain.errors import ContextTooLong, InvalidRequest
from tunery.domain.models import BaseModel
from tunery.domain.tenants import Tenant
from tunery.domain.usage import UsageKind
from tunery.services.answers import Options, PreparedAnswer, generations_of
from tunery.services.known_models import KnownModels


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked, after the edge has checked its shape."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    options: Options
    end_user: str | None = None
    calling: Calling | None = None
    endpoint: str = "v1/chat/completions"


def prepare_chat(
    models: KnownModels,
    renderers: Callable[[BaseModel], ChatRenderer],
    engine_context_tokens: int,
    tenant: Tenant,
    request: ChatRequest,
) -> PreparedAnswer:
    """Find the model and render the conversation; all that can be refused is refused here."""
    model = models.find(tenant, request.model)
    if model is None:
        raise models.refusal(tenant, request.model, "a chat", request.endpoint)
    renderer = renderers(model.base)
    context = min(model.base.context_tokens, engine_context_tokens)
    characters = sum(map(least_length, request.messages))
    fewest = characters // renderer.tokenizer.longest_token  # tokens that it has at the least
    if fewest > context:  # refused before the work of counting exactly
        raise ContextTooLong(context, fewest, request.options.max_tokens or 1)
    calling, options = request.calling, request.options
    prompt_ids = renderer.prompt(request.messages, () if calling is None else calling.functions)
    reading = None
    if calling is not None:
        form = renderer.call_form
        grammar = form.grammar(calling, _schemas(calling), answer=options.grammar)
        options = replace(options, grammar=grammar)
        if calling.choice != "none":
            reading = Reading(form, calling.allowed, required=calling.choice == "required")
    return PreparedAnswer(
        generations=generations_of(
            model,
            prompt_ids,
            options,
            tenant=tenant,
            context_tokens=context,
            vocabulary=renderer.tokenizer.vocabulary,
        ),
        model=model,
        kind=UsageKind.CHAT,
        prompt_tokens=len(prompt_ids),
        end_user=request.end_user,
        reading=reading,
    )


def _schemas(calling: Calling) -> dict[str, Mapping[str, Any]]:
    """Return the schemas that arguments are held to.

    One that cannot be followed is refused where its function is strict, and is else advice.
    """
    schemas: dict[str, Mapping[str, Any]] = {}
    for function in calling.callable():
        schemas[function.name] = ANY_OBJECT
        if not calling.follows_schema(function):
            continue
        fault = _fault(json.dumps(function.schema()))
        if fault is None:
            schemas[function.name] = function.schema()
        elif function.strict:
            raise InvalidRequest(
                f"Invalid schema for function '{function.name}': {fault}.",
                param=function.param,
                code="invalid_function_parameters",
            )
    return schemas


@lru_cache(maxsize=128)
def _fault(schema: str) -> str | None:
    """Return why a schema, which is JSON, cannot be followed: conversations bring the same ones."""
    return fault_of(json.loads(schema), schema_grammar)

"""An answer that the engine is to make: what it is, and what it is charged as."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunery.datasets.heard import Reading
from tunery.domain.errors import ContextTooLong, InvalidRequest
from tunery.domain.once import OnceKey
from tunery.domain.ports.engine import Generation
from tunery.domain.tenants import Caller, Tenant
from tunery.domain.usage import UsageKind, UsageRecord, chat_cost
from tunery.services.ledger import LedgerLine
from tunery.services.models import NamedModel
from tunery.storage.database import Database

_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class Options:
    """How each choice is to be made; `domain/ports/engine.Generation` says what the numbers mean.

    Without `max_tokens` an answer may fill the context.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedAnswer:
    """The choices to make for one request. Each prompt is charged once, each choice is charged.

    `reading` says how calls are found in them; None where there can be none.
    """

    generations: tuple[Generation, ...]
    model: NamedModel
    kind: UsageKind
    prompt_tokens: int
    end_user: str | None
    reading: Reading | None = None


def generations_of(
    model: NamedModel,
    prompt_ids: Sequence[int],
    options: Options,
    *,
    tenant: Tenant,
    context_tokens: int,
    vocabulary: int,
) -> tuple[Generation, ...]:
    """Return the choices to make of one prompt; under a seed each has a seed of its own.

    Raises ContextTooLong where prompt and answer do not fit, InvalidRequest for a bias on a token
    that the model does not have.
    """
    room = context_tokens - len(prompt_ids)
    max_tokens = room if options.max_tokens is None else options.max_tokens
    if max_tokens < 1 or max_tokens > room:
        raise ContextTooLong(context_tokens, len(prompt_ids), options.max_tokens or 1)
    for token_id, _ in options.logit_bias:
        if token_id >= vocabulary:
            raise InvalidRequest(
                f"Invalid value for 'logit_bias': token id {token_id}; this model's ids are below"
                f" {vocabulary}.",
                param="logit_bias",
                code="invalid_value",
            )
    first = Generation(
        prompt_ids=prompt_ids,
        base_digest=model.base.digest,
        adapter=None if model.tuned is None else model.tuned.adapter,
        max_tokens=max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        stop=options.stop,
        seed=options.seed,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        logit_bias=options.logit_bias,
        top_logprobs=options.top_logprobs,
        grammar=options.grammar,
        tenant=tenant.project_id,
    )
    seed = options.seed
    return tuple(
        first if seed is None or not number else replace(first, seed=_wrapped(seed + number))
        for number in range(options.n)
    )


def _wrapped(seed: int) -> int:
    """Return the seed within 64 bits."""
    return (seed + _SEEDS) % (2 * _SEEDS) - _SEEDS


def check_once(database: Database, tenant: Tenant, once: OnceKey) -> None:
    """Raise AlreadyDone where the request is answered and its answer kept: before the work."""
    with database.read() as tx:
        tx.once(tenant).check(once, int(time.time()))


def ledger_line(caller: Caller, prepared: PreparedAnswer, completion_tokens: int) -> LedgerLine:
    """Return what a request used, whether it was heard to the end or not."""
    model = prepared.model
    record = UsageRecord(
        request_id=caller.request_id,
        kind=prepared.kind,
        model=model.name,
        base=model.base.name,
        key_id=caller.key_id,
        end_user=prepared.end_user,
        input_tokens=prepared.prompt_tokens,
        output_tokens=completion_tokens,
        cost_nanodollars=chat_cost(
            model.base.prices,
            tuned=model.tuned is not None,
            input_tokens=prepared.prompt_tokens,
            output_tokens=completion_tokens,
            batch=caller.batch,
        ),
        batch=caller.batch,
    )
    return LedgerLine(caller.tenant, record)

"""An answer that the engine is to make: what it is, what it is charged as, and its settling."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunery.domain.ports.engine import Generation
from tunery.domain.tenants import Caller
from tunery.domain.usage import UsageKind, UsageRecord, chat_cost
from tunery.services.models import NamedModel
from tunery.storage.database import Database

_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class PreparedAnswer:
    """The choices to make for one request. Each prompt is charged once, each choice is charged."""

    generations: tuple[Generation, ...]
    model: NamedModel
    kind: UsageKind
    prompt_tokens: int
    end_user: str | None


def choices_of(prompts: Sequence[Generation], n: int) -> tuple[Generation, ...]:
    """Return `n` generations of each prompt, in order; under a seed each choice has its own."""
    return tuple(
        generation
        if generation.seed is None or number == 0
        else replace(generation, seed=(generation.seed + number + _SEEDS) % (2 * _SEEDS) - _SEEDS)
        for generation in prompts
        for number in range(n)
    )


def settle(
    database: Database, caller: Caller, prepared: PreparedAnswer, completion_tokens: int
) -> None:
    """Write what a request used into the ledger: once, whether it was heard to the end or not."""
    model = prepared.model
    with database.write() as tx:
        tx.usage(caller.tenant).add(
            UsageRecord(
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
            ),
            int(time.time()),
        )

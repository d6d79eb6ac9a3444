"""Responses: what a request goes on from, its prompt, and the keeping of what was answered."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from tunery.datasets.conversation import least_length
from tunery.datasets.rendering import ChatRenderer
from tunery.datasets.tools import Function
from tunery.domain.errors import ContextTooLong, InvalidRequest, NotFound
from tunery.domain.models import BaseModel
from tunery.domain.once import OnceKey
from tunery.domain.responses import Item, StoredResponse, text_length
from tunery.domain.tenants import Tenant
from tunery.services.answers import PreparedAnswer
from tunery.services.chat import ChatRequest, prepare_chat
from tunery.services.known_models import KnownModels
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Order, Page, cut_page
from tunery.storage.transaction import Transaction

# More than a token ever stands for: a context of so many characters a token is over-full.
_TOKEN_CHARACTERS = 1024
_FOLLOWING = ("assistant", "tool")


def earlier_items(
    database: Database, tenant: Tenant, response_id: str, context_tokens: int
) -> list[Item]:
    """Return the conversation up to and with a response, oldest first.

    Of a conversation that no context holds, the newest part alone is read: more than fits.
    Raises InvalidRequest where the response, or one that it goes on from, is not there.
    """
    newest_first: list[tuple[Item, ...]] = []
    characters = 0
    with database.read() as tx:
        for wanted, found in _ancestry(tx, tenant, response_id):
            if found is None:
                raise InvalidRequest(
                    f"Previous response with id '{wanted[:80]}' not found.",
                    param="previous_response_id",
                    code="previous_response_not_found",
                )
            newest_first.append(found.items)
            characters += text_length(found.items)
            if characters > context_tokens * _TOKEN_CHARACTERS:
                break
    return [item for items in reversed(newest_first) for item in items]


def prepare_response(
    models: KnownModels,
    renderers: Callable[[BaseModel], ChatRenderer],
    engine_context_tokens: int,
    tenant: Tenant,
    request: ChatRequest,
    *,
    instructions: str | None,
    truncate: bool,
) -> PreparedAnswer:
    """Prepare the answer to a conversation under instructions.

    With `truncate`, as many of the oldest messages as must are left out, so that prompt and answer
    fit the context; what is left does not begin with an answer, or with what its calls gave.
    """

    def prepare(messages: Sequence[Mapping[str, Any]]) -> PreparedAnswer:
        whole = [*under(instructions), *messages]
        return prepare_chat(
            models,
            renderers,
            engine_context_tokens,
            tenant,
            replace(request, messages=whole),
        )

    messages = request.messages
    try:
        return prepare(messages)
    except ContextTooLong as error:
        starts = [n for n, one in enumerate(messages) if n and one["role"] not in _FOLLOWING]
        if not truncate or not starts:
            raise
        too_long = error
    fitting: PreparedAnswer | None = None
    low, high = 0, len(starts)  # the first start that fits is in [low, high)
    while low < high:
        middle = (low + high) // 2
        try:
            fitting = prepare(messages[starts[middle] :])
            high = middle
        except ContextTooLong as error:
            low, too_long = middle + 1, error
    if fitting is None:
        raise too_long
    return fitting


def under(instructions: str | None) -> list[dict[str, Any]]:
    """Return what instructions put before a conversation."""
    return [] if instructions is None else [{"role": "system", "content": instructions}]


def count_tokens(
    models: KnownModels,
    renderers: Callable[[BaseModel], ChatRenderer],
    tenant: Tenant,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    functions: Sequence[Function] = (),
) -> int:
    """Return the tokens of a conversation's prompt; raise ContextTooLong if no context has them."""
    found = models.find(tenant, model)
    if found is None:
        raise models.refusal(tenant, model, "a chat", "v1/responses/input_tokens")
    base = found.base
    renderer = renderers(base)
    characters = sum(map(least_length, messages))
    fewest = characters // renderer.tokenizer.longest_token
    if fewest > base.context_tokens:  # the work of counting exactly would be for nothing
        raise ContextTooLong(base.context_tokens, fewest, 1)
    return len(renderer.prompt(messages, functions))


def store_response(
    database: Database, tenant: Tenant, response: StoredResponse, once: OnceKey | None
) -> None:
    """Keep a response. Raises AlreadyDone under a known key."""
    with database.write() as tx:
        tx.once(tenant).record(once, response.id, response.created_at)
        tx.responses(tenant).add(response)


def find_response(tx: Transaction, tenant: Tenant, response_id: str) -> StoredResponse:
    """Return a response, or raise NotFound in OpenAI's words."""
    response = tx.responses(tenant).get(response_id, int(time.time()))
    if response is None:
        raise NotFound(f"Response with id '{response_id[:80]}' not found.")
    return response


def get_response(database: Database, tenant: Tenant, response_id: str) -> StoredResponse:
    """Return a response."""
    with database.read() as tx:
        return find_response(tx, tenant, response_id)


def delete_response(database: Database, tenant: Tenant, response_id: str) -> None:
    """Remove a response; those that go on from it can be read, and not gone on from."""
    with database.write() as tx:
        find_response(tx, tenant, response_id)
        tx.responses(tenant).delete(response_id)


def list_input_items(
    database: Database,
    tenant: Tenant,
    response_id: str,
    *,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[Item]:
    """Return a page of what a response was made from: earlier items, as far as they are there."""
    with database.read() as tx:
        newest_first = [find_response(tx, tenant, response_id).input_items]
        for _, earlier in islice(_ancestry(tx, tenant, response_id), 1, None):
            newest_first.append(() if earlier is None else earlier.items)
    items = [item for some in reversed(newest_first) for item in some]
    return cut_page(items, [item["id"] for item in items], after=after, limit=limit, order=order)


def _ancestry(
    tx: Transaction, tenant: Tenant, response_id: str
) -> Iterator[tuple[str, StoredResponse | None]]:
    """Yield a response and those it goes on from, newest first; None, last, for a missing one."""
    wanted: str | None = response_id
    now = int(time.time())
    while wanted is not None:
        found = tx.responses(tenant).get(wanted, now)
        yield wanted, found
        wanted = None if found is None else found.previous_id

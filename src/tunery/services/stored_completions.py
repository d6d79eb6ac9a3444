"""Stored chat completions: kept where a request says so, listed, labelled anew, deleted."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunery.domain.errors import NotFound
from tunery.domain.once import OnceKey
from tunery.domain.stored_completions import StoredCompletion
from tunery.domain.tenants import Tenant
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Order, Page, cut_page
from tunery.storage.transaction import Transaction


def store_completion(
    database: Database, tenant: Tenant, completion: StoredCompletion, once: OnceKey | None
) -> None:
    """Keep a completion. Raises AlreadyDone under a known key."""
    with database.write() as tx:
        tx.once(tenant).record(once, completion.id, completion.created_at)
        tx.stored_completions(tenant).add(completion)


def find_completion(tx: Transaction, tenant: Tenant, completion_id: str) -> StoredCompletion:
    """Return a completion, or raise NotFound."""
    completion = tx.stored_completions(tenant).get(completion_id)
    if completion is None:
        raise NotFound(f"Chat completion {completion_id[:80]} not found.")
    return completion


def get_completion(database: Database, tenant: Tenant, completion_id: str) -> StoredCompletion:
    """Return a completion."""
    with database.read() as tx:
        return find_completion(tx, tenant, completion_id)


def list_completions(
    database: Database,
    tenant: Tenant,
    *,
    model: str | None,
    metadata: Mapping[str, str] | None,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[StoredCompletion]:
    """Return a page of completions; `metadata` of None means those that have none."""
    with database.read() as tx:
        return tx.stored_completions(tenant).page(
            model=model, metadata=metadata, after=after, limit=limit, order=order
        )


def update_completion(
    database: Database, tenant: Tenant, completion_id: str, metadata: Mapping[str, str] | None
) -> StoredCompletion:
    """Put `metadata` in place of what a completion carried."""
    with database.write() as tx:
        find_completion(tx, tenant, completion_id)
        tx.stored_completions(tenant).set_metadata(completion_id, metadata)
        return find_completion(tx, tenant, completion_id)


def delete_completion(database: Database, tenant: Tenant, completion_id: str) -> None:
    """Remove a completion."""
    with database.write() as tx:
        find_completion(tx, tenant, completion_id)
        tx.stored_completions(tenant).delete(completion_id)


def list_messages(
    database: Database,
    tenant: Tenant,
    completion_id: str,
    *,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[tuple[str, Mapping[str, Any]]]:
    """Return a page of the messages that a completion answers, each with its id."""
    messages: Sequence[Mapping[str, Any]] = get_completion(database, tenant, completion_id).request[
        "messages"
    ]
    ids = [f"{completion_id}-{number}" for number in range(len(messages))]
    pairs = list(zip(ids, messages, strict=True))
    return cut_page(pairs, ids, after=after, limit=limit, order=order)

"""The ledger: what each request used, written once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tunery.domain.tenants import Tenant
from tunery.domain.usage import UsageRecord
from tunery.storage.database import Database


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """What one request used, and whose it was."""

    tenant: Tenant
    record: UsageRecord


def write_lines(database: Database, lines: Sequence[LedgerLine]) -> None:
    """Write all of `lines` or none; a request's second line is dropped."""
    now = int(time.time())
    with database.write() as tx:
        for line in lines:
            tx.usage(line.tenant).add(line.record, now)

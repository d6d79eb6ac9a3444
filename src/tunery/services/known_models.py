"""Models that have just answered: who asks them again need not wait for the database."""

import time
from collections.abc import Callable

from tunery.domain.errors import NotFound
from tunery.domain.tenants import Tenant
from tunery.services.imported_models import awaited
from tunery.services.models import ModelDirectory, NamedModel, not_for
from tunery.storage.database import Database

KNOWN_S = 1.0  # what is deleted, or no longer granted, by another process answers no longer
_AT_MOST = 10_000  # names


class KnownModels:
    """Finds models by name, for a tenant. Thread-safe: what is remembered is replaced whole."""

    def __init__(
        self,
        database: Database,
        directory: ModelDirectory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self._database = database
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[NamedModel, float]] = {}

    def find(self, tenant: Tenant, name: str) -> NamedModel | None:
        """Return what stands behind `name`, if it is anything this tenant may use."""
        known = self.known(tenant, name)
        if known is not None:
            return known
        memory = self._known  # a `forget` during the look-up leaves this one behind
        until = self._clock() + KNOWN_S
        with self._database.read() as tx:
            found = self.directory.find(tx, tenant, name)
        if found is not None:
            if len(memory) >= _AT_MOST:
                memory.clear()
            memory[tenant.project_id, name] = found, until
        return found

    def known(self, tenant: Tenant, name: str) -> NamedModel | None:
        """Return what stands behind `name` as far as that is remembered."""
        model, until = self._known.get((tenant.project_id, name), (None, 0.0))
        return model if model is not None and self._clock() < until else None

    def refusal(self, tenant: Tenant, name: str, kind: str, endpoint: str) -> NotFound:
        """Return the error for a name that no model of this kind has for this tenant."""
        with self._database.read() as tx:
            waiting = awaited(tx, tenant, name)
        return waiting or not_for(self.directory, name, kind, endpoint)

    def forget(self) -> None:
        """Look every name up anew: something has been deleted, or is no longer granted."""
        self._known = {}

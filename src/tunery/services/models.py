"""Names to models: what stands behind a name, for this tenant."""

from dataclasses import dataclass

from tunery.domain.errors import Forbidden, NotFound, Unavailable
from tunery.domain.models import BaseModel, TunedModel
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tenants import Tenant
from tunery.storage.catalogue import Catalogue
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A name, the base that computes it, and the tuned model where it is one."""

    name: str
    base: BaseModel
    tuned: TunedModel | None


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """The catalogue, and which of its bases is served."""

    catalogue: Catalogue
    served: str

    def base(self) -> BaseModel:
        """Return the base that is served; raise Unavailable where its files are missing."""
        base = self.catalogue.get(self.served)
        if base is None:
            raise Unavailable(
                f"The base model {self.served!r} is not on this machine; run `tunery models pull`.",
                code="model_files_missing",
            )
        return base

    def find(self, tx: Transaction, tenant: Tenant, name: str) -> NamedModel | None:
        """Return what stands behind `name`, if it is anything this tenant may use."""
        base = self.base()
        if name in base.names:
            return NamedModel(name, base, None)
        tuned = tx.models(tenant).get(name)
        if tuned is None or tuned.base_digest != base.digest:
            return None
        return NamedModel(name, base, tuned)


def unknown_model(name: str) -> NotFound:
    """Return the error for a model that is not there, or is another tenant's."""
    return NotFound(
        f"The model `{name[:200]}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def get_model(
    database: Database, directory: ModelDirectory, tenant: Tenant, name: str
) -> NamedModel:
    """Return a model by name."""
    with database.read() as tx:
        found = directory.find(tx, tenant, name)
    if found is None:
        raise unknown_model(name)
    return found


def list_models(database: Database, directory: ModelDirectory, tenant: Tenant) -> list[NamedModel]:
    """Return the base under each of its names, then the tenant's tuned models."""
    base = directory.base()
    with database.read() as tx:
        tuned = tx.models(tenant).all()
    return [
        *(NamedModel(name, base, None) for name in base.names),
        *(NamedModel(m.name, base, m) for m in tuned if m.base_digest == base.digest),
    ]


def delete_model(
    database: Database, blobs: BlobStore, directory: ModelDirectory, tenant: Tenant, name: str
) -> None:
    """Remove a tuned model and its files; requests in flight end as they began."""
    with database.write() as tx:
        found = directory.find(tx, tenant, name)
        if found is None:
            raise unknown_model(name)
        if found.tuned is None:
            raise Forbidden(f"The model `{name[:200]}` is a base model; only tuned ones are yours.")
        tx.models(tenant).delete(name)
        shared = tx.models(tenant).adapter_in_use(found.tuned.adapter)
    if not shared:
        blobs.delete_prefix(found.tuned.adapter.key)

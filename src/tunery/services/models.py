"""Names to models: what stands behind a name, for this tenant."""

from dataclasses import dataclass

from tunery.domain import moderation
from tunery.domain.errors import Forbidden, NotFound, Unavailable
from tunery.domain.models import BaseModel, TunedModel, fingerprint
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tenants import Tenant
from tunery.storage.catalogue import Catalogue
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A name, the base that computes it, and the tuned model where it is one.

    `granted` is a tuned model of another project that this one may ask, and nothing else.
    """

    name: str
    base: BaseModel
    tuned: TunedModel | None
    granted: bool = False

    def fingerprint(self, engine: str) -> str:
        """Return which weights answer to the name where `engine` computes them."""
        adapter = None if self.tuned is None else self.tuned.adapter.digest
        return fingerprint(self.base.digest, adapter, engine)


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
        granted = False
        if tuned is None:  # a project's own model of that name comes first
            tuned = next(iter(tx.models(tenant).granted(name)), None)
            granted = True
        if tuned is None or tuned.base_digest != base.digest:
            return None
        return NamedModel(name, base, tuned, granted)


def unknown_model(name: str) -> NotFound:
    """Return the error for a model that is not there, or is another tenant's."""
    return NotFound(
        f"The model `{name[:200]}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def not_for(
    directory: ModelDirectory, name: str, kind: str, endpoint: str, *, makes_text: bool = False
) -> NotFound:
    """Return the error, in OpenAI's words, for a name that no model of this kind has.

    `makes_text` says that it is the name of a model that makes text.
    """
    if makes_text:
        instead = "v1/chat/completions"
    elif directory.catalogue.embedding(name) is not None:
        instead = "v1/embeddings"
    elif name in moderation.MODELS:
        instead = "v1/moderations"
    else:
        return unknown_model(name)
    return NotFound(
        f"This is not {kind} model and thus not supported in the {endpoint} endpoint. Did you mean"
        f" to use {instead}?",
        param="model",
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
    """Return the base under each of its names, then the tuned models: own ones, granted ones."""
    base = directory.base()
    with database.read() as tx:
        own, granted = tx.models(tenant).all(), tx.models(tenant).granted()
    found = {model.name: NamedModel(model.name, base, model) for model in own}
    for model in granted:
        found.setdefault(model.name, NamedModel(model.name, base, model, granted=True))
    return [
        *(NamedModel(name, base, None) for name in base.names),
        *(one for one in found.values() if one.tuned and one.tuned.base_digest == base.digest),
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
        if found.granted:
            raise Forbidden(
                f"The model `{name[:200]}` belongs to another project of this organization; only"
                " that one can delete it.",
                code="insufficient_permissions",
            )
        tx.models(tenant).delete(name)
        tx.permissions(tenant.organization_id).forget(tenant.project_id, name)
        shared = tx.models(tenant).adapter_in_use(found.tuned.adapter)
    if not shared:
        blobs.delete_prefix(found.tuned.adapter.key)

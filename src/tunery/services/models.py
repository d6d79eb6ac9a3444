"""Names to models: what stands behind a name, for this tenant."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunery.domain import moderation
from tunery.domain.errors import Forbidden, NotFound, TuneryError, Unavailable
from tunery.domain.models import BaseModel, TunedModel, fingerprint
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tenants import Tenant
from tunery.services.imported_models import awaited
from tunery.storage.catalogue import Catalogue, missing_files
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
    """The catalogue, and which of its bases is the default: served from the start.

    `alone` is that one where the others are not served.
    """

    catalogue: Catalogue
    default: str
    alone: bool = False

    def base(self) -> BaseModel:
        """Return the default base; raise Unavailable where it is not there."""
        base = self.catalogue.get(self.default)
        if base is None:
            raise Unavailable(
                f"The base model {self.default!r} is not on this machine; run `tunery models"
                " pull`.",
                code="model_files_missing",
            )
        return base

    def bases(self) -> Iterator[BaseModel]:
        """Yield every base, the default first: most requests ask for that and read one file."""
        yield self.base()
        if not self.alone:
            yield from (base for base in self.catalogue.all() if base.name != self.default)

    def of_digest(self, digest: str) -> BaseModel | None:
        """Return the base with these files, whatever it is called now."""
        return next((base for base in self.bases() if base.digest == digest), None)

    def pinned(self, name: str, digest: str) -> BaseModel:
        """Return the base that a job or model was made with; raise TuneryError where it is gone."""
        base = self.of_digest(digest)
        if base is None:
            raise TuneryError(
                f"The base model {name} has changed since, or is gone.", code="model_not_available"
            )
        missing = missing_files(Path(base.path))
        if missing:
            raise TuneryError(
                f"The base model {base.name} lacks {', '.join(missing)}; whoever runs this service"
                " has to put that back, then create the job again.",
                code="model_files_missing",
            )
        return base

    def find(self, tx: Transaction, tenant: Tenant, name: str) -> NamedModel | None:
        """Return what stands behind `name`, if it is anything this tenant may use."""
        for base in self.bases():
            if name in base.names:
                return NamedModel(name, base, None)
        tuned = tx.models(tenant).get(name)
        granted = False
        if tuned is None:  # a project's own model of that name comes first
            tuned = next(iter(tx.models(tenant).granted(name)), None)
            granted = True
        pinned = None if tuned is None else self.of_digest(tuned.base_digest)
        return None if pinned is None else NamedModel(name, pinned, tuned, granted)


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
        waiting = awaited(tx, tenant, name) if found is None else None
    if found is None:
        raise waiting or unknown_model(name)
    return found


def list_models(database: Database, directory: ModelDirectory, tenant: Tenant) -> list[NamedModel]:
    """Return each base under each of its names, then the tuned models: own ones, granted ones."""
    bases = list(directory.bases())
    pinned = {base.digest: base for base in reversed(bases)}  # as `of_digest`: the first of equals
    with database.read() as tx:
        own, granted = tx.models(tenant).all(), tx.models(tenant).granted()
    tuned = {model.name: (model, False) for model in own}
    for model in granted:
        tuned.setdefault(model.name, (model, True))
    return [
        *(NamedModel(name, base, None) for base in bases for name in base.names),
        *(
            NamedModel(name, pinned[model.base_digest], model, theirs)
            for name, (model, theirs) in tuned.items()
            if model.base_digest in pinned
        ),
    ]


def delete_model(
    database: Database, blobs: BlobStore, directory: ModelDirectory, tenant: Tenant, name: str
) -> None:
    """Remove a tuned model and its files; requests in flight end as they began."""
    with database.write() as tx:
        found = directory.find(tx, tenant, name)
        if found is None:
            raise awaited(tx, tenant, name) or unknown_model(name)
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

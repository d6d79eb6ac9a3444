"""Models."""

from tunery.domain.models import EmbeddingModel
from tunery.domain.tenants import Tenant
from tunery.protocol.models import Model, ModelDetails, ModelPrices
from tunery.services.models import NamedModel


def to_wire_model(model: NamedModel, tenant: Tenant, engine: str) -> Model:
    """Return a model as OpenAI writes it, and what stands behind its name.

    The job behind a granted model is its owner's alone.
    """
    base, tuned = model.base, model.tuned
    prices = base.prices
    return Model(
        id=model.name,
        created=base.created_at if tuned is None else tuned.created_at,
        owned_by="system" if tuned is None else tenant.organization_slug,
        tunery=ModelDetails(
            kind="base" if tuned is None else "tuned",
            base=base.name,
            base_digest=base.digest,
            adapter_digest=None if tuned is None else tuned.adapter.digest,
            engine=engine,
            system_fingerprint=model.fingerprint(engine),
            context_tokens=base.context_tokens,
            prices=ModelPrices(
                training=float(prices.training),
                input=float(prices.input if tuned is None else prices.tuned_input),
                output=float(prices.output if tuned is None else prices.tuned_output),
            ),
            dimensions=None,
            job_id=None if tuned is None or model.granted else tuned.job_id,
        ),
    )


def to_wire_embedding_model(name: str, model: EmbeddingModel, engine: str) -> Model:
    """Return an embedding model as OpenAI writes it, and what stands behind its name."""
    return Model(
        id=name,
        created=model.created_at,
        owned_by="system",
        tunery=ModelDetails(
            kind="embedding",
            base=model.name,
            base_digest=model.digest,
            adapter_digest=None,
            engine=engine,
            system_fingerprint=None,  # OpenAI's embeddings have none to compare it with
            context_tokens=model.max_tokens,
            prices=ModelPrices(training=None, input=float(model.price), output=None),
            dimensions=model.dimensions,
            job_id=None,
        ),
    )

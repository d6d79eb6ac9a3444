"""Models."""

from tunery.domain.models import BaseModel, TunedModel
from tunery.domain.tenants import Tenant
from tunery.protocol.models import Model, ModelDetails, ModelPrices


def to_wire_model(
    name: str,
    base: BaseModel,
    tuned: TunedModel | None,
    tenant: Tenant,
    *,
    granted: bool = False,
) -> Model:
    """Return a model as OpenAI writes it, and what stands behind its name.

    The job behind a granted model is its owner's alone.
    """
    prices = base.prices
    return Model(
        id=name,
        created=base.created_at if tuned is None else tuned.created_at,
        owned_by="system" if tuned is None else tenant.organization_slug,
        tunery=ModelDetails(
            base=base.name,
            base_digest=base.digest,
            adapter_digest=None if tuned is None else tuned.adapter.digest,
            context_tokens=base.context_tokens,
            prices=ModelPrices(
                training=float(prices.training),
                input=float(prices.input if tuned is None else prices.tuned_input),
                output=float(prices.output if tuned is None else prices.tuned_output),
            ),
            job_id=None if tuned is None or granted else tuned.job_id,
        ),
    )

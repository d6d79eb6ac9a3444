"""All endpoints. A new one is an entry in its module, and the module a line here."""

from conformance.fields import (
    batches,
    chat,
    completions,
    embeddings,
    files,
    fine_tuning,
    models,
    moderations,
    permissions,
    responses,
    stored_completions,
    uploads,
    webhooks,
)
from conformance.fields.probe import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *files.ENDPOINTS,
    *uploads.ENDPOINTS,
    *fine_tuning.ENDPOINTS,
    *permissions.ENDPOINTS,
    *models.ENDPOINTS,
    *chat.ENDPOINTS,
    *stored_completions.ENDPOINTS,
    *completions.ENDPOINTS,
    *responses.ENDPOINTS,
    *embeddings.ENDPOINTS,
    *moderations.ENDPOINTS,
    *batches.ENDPOINTS,
    *webhooks.ENDPOINTS,
)

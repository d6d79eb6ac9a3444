"""All endpoints. A new one is an entry in its module, and the module a line here."""

from conformance.fields import batches, chat, files, fine_tuning, models, permissions, uploads
from conformance.fields.probe import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *files.ENDPOINTS,
    *uploads.ENDPOINTS,
    *fine_tuning.ENDPOINTS,
    *permissions.ENDPOINTS,
    *models.ENDPOINTS,
    *chat.ENDPOINTS,
    *batches.ENDPOINTS,
)

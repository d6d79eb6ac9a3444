"""All endpoints. A new one is an entry in its module, and the module a line here."""

from conformance.fields import chat, files, fine_tuning, models
from conformance.fields.probe import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *files.ENDPOINTS,
    *fine_tuning.ENDPOINTS,
    *models.ENDPOINTS,
    *chat.ENDPOINTS,
)

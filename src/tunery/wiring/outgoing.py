"""Requests to addresses that tenants gave: what may be asked is a setting."""

from tunery.outgoing.addresses import Guard
from tunery.outgoing.client import GuardedSender
from tunery.settings import Settings


def build_sender(settings: Settings) -> GuardedSender:
    """Return what posts webhooks."""
    return GuardedSender(Guard(allow_private=settings.webhooks.allow_private))

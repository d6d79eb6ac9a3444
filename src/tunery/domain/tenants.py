"""Who owns an object: an organization's project. And the keys that speak for it."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Tenant:
    """One project of one organization. No repository of tenants' objects is made without it."""

    organization_id: str
    organization_slug: str
    project_id: str


class KeyKind(StrEnum):
    """What a key opens."""

    PROJECT = "project"  # files, jobs, models and inference of one project
    ADMIN = "admin"  # the organization's administration, no tenant data


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is kept: its secret is not among its fields."""

    id: str
    kind: KeyKind
    name: str
    hint: str  # the last characters, to tell keys apart in a list
    tenant: Tenant
    created_at: int
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who administers an organization, authenticated by an admin key."""

    organization_id: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, authenticated, and the id of the request: what an answer is charged to."""

    tenant: Tenant
    key_id: str
    request_id: str
    batch: bool = False  # a line of a batch: at half the price, and asked again if broken off

"""Who asks: the key of a request becomes a tenant or an administrator, or the request ends here."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from tunery.api.context import context_of
from tunery.domain.errors import Unauthenticated
from tunery.domain.tenants import Administrator, ApiKey, Caller
from tunery.services import accounts

# For the OpenAPI document; what stands in the header is read and refused below.
_BEARER = HTTPBearer(
    auto_error=False, description="A project's API key; for administration, an admin key."
)


async def _caller(request: Request, _key: Annotated[object, Security(_BEARER)]) -> Caller:
    key = await _authenticated(request)
    tenant = accounts.require_project_key(key)
    _check_header(request, key, "openai-organization", tenant.organization_id)
    _check_header(request, key, "openai-project", tenant.project_id)
    request.state.organization = tenant.organization_slug
    return Caller(tenant, key.id, request.state.request_id)


async def _administrator(
    request: Request, _key: Annotated[object, Security(_BEARER)]
) -> Administrator:
    key = await _authenticated(request)
    admin = accounts.require_admin_key(key)
    # Clients that name their project do so in every request; an admin key speaks for them all.
    _check_header(request, key, "openai-organization", admin.organization_id)
    request.state.organization = key.tenant.organization_slug
    return admin


async def _authenticated(request: Request) -> ApiKey:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    token = secret.strip() if scheme.lower() == "bearer" else None
    return await context_of(request).keys.authenticate(token)


def _check_header(request: Request, key: ApiKey, header: str, value: str) -> None:
    given = request.headers.get(header)
    if given is not None and given not in (value, key.tenant.organization_slug):
        name = header.removeprefix("openai-")
        raise Unauthenticated(
            f"The header {header} does not match the {name} of this API key.",
            code=f"mismatched_{name}",
        )


CallerDependency = Annotated[Caller, Depends(_caller)]
AdminDependency = Annotated[Administrator, Depends(_administrator)]

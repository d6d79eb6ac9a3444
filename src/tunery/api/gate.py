"""Who asks: the key of a request becomes a tenant, or the request ends here."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from tunery.api.context import context_of
from tunery.domain.errors import Unauthenticated
from tunery.domain.tenants import Caller
from tunery.services import accounts

# For the OpenAPI document; what stands in the header is read and refused below.
_BEARER = HTTPBearer(auto_error=False, description="A project's API key.")


async def _caller(request: Request, _key: Annotated[object, Security(_BEARER)]) -> Caller:
    context = context_of(request)
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    token = secret.strip() if scheme.lower() == "bearer" else None
    key = await run_in_threadpool(accounts.authenticate, context.database, context.pepper, token)
    tenant = accounts.require_project_key(key)
    for header, value in (
        ("openai-organization", tenant.organization_id),
        ("openai-project", tenant.project_id),
    ):
        given = request.headers.get(header)
        if given is not None and given not in (value, tenant.organization_slug):
            name = header.removeprefix("openai-")
            raise Unauthenticated(
                f"The header {header} does not match the {name} of this API key.",
                code=f"mismatched_{name}",
            )
    request.state.organization = tenant.organization_slug
    return Caller(tenant, key.id, request.state.request_id)


CallerDependency = Annotated[Caller, Depends(_caller)]

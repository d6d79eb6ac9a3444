"""Query parameters: unknown ones are refused by name, and `metadata[key]=value` is understood."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from tunery.domain.errors import InvalidRequest

_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512


# What is given as a list or a map, `include[]=a` or `metadata[key]=value`: its routes look at it.
_IN_BRACKETS = frozenset({"include", "metadata"})


async def refuse_unknown_query(request: Request) -> None:
    """Raise InvalidRequest that names the first query parameter which would not be heard.

    It is one that the route does not know, or that stands twice where one is read.
    """
    if not request.url.query:
        return
    route = request.scope["route"]
    known = set(_names(route.dependant)) if isinstance(route, APIRoute) else set()
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        one_of_many = name.endswith("]") and name.partition("[")[0] in known & _IN_BRACKETS
        if name not in known and not one_of_many:
            raise InvalidRequest(
                f"Unknown query parameter: '{name[:80]}'.",
                param=name[:80],
                code="unknown_parameter",
            )
        if count > 1 and not one_of_many:
            raise InvalidRequest(
                f"Got the query parameter '{name[:80]}' {count} times; give it once.",
                param=name[:80],
                code="invalid_value",
            )


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)


NO_METADATA = "null"
MetadataFilter = Mapping[str, str] | None
"""Pairs that an object must carry; empty: every object; None: only objects without metadata."""


def _metadata(
    request: Request,
    metadata: Annotated[
        str | None, Query(description="`metadata[key]=value` filters; `metadata=null`: none set")
    ] = None,
) -> MetadataFilter:
    pairs: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if not name.startswith("metadata["):
            continue
        key = name.removeprefix("metadata[").removesuffix("]")
        if not 1 <= len(key) <= _MAX_KEY or len(value) > _MAX_VALUE or key in pairs:
            raise InvalidRequest(
                f"Invalid filter '{name[:80]}': a key has 1 to {_MAX_KEY} characters and stands"
                f" once, a value has at most {_MAX_VALUE}.",
                param="metadata",
            )
        pairs[key] = value
    if len(pairs) > _MAX_PAIRS:
        raise InvalidRequest(
            f"Got {len(pairs)} metadata filters; at most {_MAX_PAIRS} are taken.", param="metadata"
        )
    if metadata is None:
        return pairs
    if pairs or metadata not in (NO_METADATA, ""):
        raise InvalidRequest(
            f"Got metadata={metadata[:80]!r}; filter by `metadata[key]=value`, or `metadata=null`"
            " for objects without metadata.",
            param="metadata",
        )
    return None


MetadataDependency = Annotated[MetadataFilter, Depends(_metadata)]

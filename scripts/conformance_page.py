"""Write docs/reference/conformance.md from the tables that tests/conformance checks."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conformance.fields.probe import Disclosed, Endpoint, Honoured, Probe, Refused  # noqa: E402 - behind the path
from conformance.fields.surface import SURFACE, endpoints, shape  # noqa: E402 - behind the path
from conformance.fields.table import ENDPOINTS  # noqa: E402 - behind the path

PAGE = ROOT / "docs" / "reference" / "conformance.md"
HEAD = """# Conformance

What the server does with each field of each request that OpenAI's SDK can send. A field is
honoured, or refused by its name with a 400; none is silently ignored. `make conformance` sends
every field of this page to a running server, with values that show its effect and with values that
it cannot honour. Written by `scripts/conformance_page.py`.

A field with parts is listed by its parts, unless it is refused as a whole; `[]` stands for each
item of a list, `[]<kind>` for items of that `type`, which are refused as a whole. An unknown field
of a body or a query is refused by its name too, and one that stands twice in a query. So is
`api-version`: the SDK's Azure clients, which send it and call their key `api-key`, speak another
dialect. What answers hold beyond OpenAI's types is in [extensions.md](extensions.md).
"""
WHAT = {Honoured: "honoured", Refused: "refused", Disclosed: "taken, not acted on"}


def rows(endpoint: Endpoint) -> list[str]:
    """Return a row a field."""
    return [
        f"| `{name}` | {WHAT[type(endpoint.fields[name])]} | {values(endpoint.fields[name])} |"
        for name in endpoint.listed()
    ]


def values(probe: Probe) -> str:
    """Return what the page says of a field's values: those that are taken."""
    if not isinstance(probe, Refused):
        return probe.values
    words = {None: "null", True: "true", False: "false"}
    neutral = [
        words[value] if value is None or isinstance(value, bool) else str(value).replace("'", '"')
        for value in probe.neutral
    ]
    return "" if not neutral else "but for " + ", ".join(f"`{value}`" for value in neutral)


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for endpoint in ENDPOINTS:
        parts.append(f"\n## `{endpoint}`\n")
        if not endpoint.listed():
            parts.append("No fields but those of the path.\n")
        else:
            table = "\n".join(rows(endpoint))
            parts.append(f"| field | | values |\n|---|---|---|\n{table}\n")
        parts += [f"\nThe parts of `{name}`: {why}.\n" for name, why in endpoint.whole.items()]
        if endpoint.note:
            parts.append(f"\n{endpoint.note}\n")
    return "".join([*parts, elsewhere(), in_numbers()])


def elsewhere() -> str:
    """Return the endpoints that are not served."""
    served = {shape(one.method, one.path) for one in ENDPOINTS}
    found = []
    for priority, paths in SURFACE.items():
        for path, methods in paths.items():
            missing = [one for one in methods.split() if shape(one, path) not in served]
            if missing:
                found.append(f"| `{path}` | {', '.join(missing)} | {priority} |")
    return f"""
## In another release

Endpoints of OpenAI's that this release does not serve: a request to one is refused as one to an
unknown URL is. MUST is the line from a file to a tuned model's answers, SHOULD what a platform
around it needs, LATER the rest. Audio, images, video, realtime, assistants and vector stores are no
part of the list.

| path | methods | priority |
|---|---|---|
{chr(10).join(found)}
"""


def in_numbers() -> str:
    """Return how much of it all there is."""
    probes = [one.fields[name] for one in ENDPOINTS for name in one.listed()]
    served = {shape(one.method, one.path) for one in ENDPOINTS}
    kinds = [sum(isinstance(probe, kind) for probe in probes) for kind in WHAT]
    honoured, refused, disclosed = (share(count, len(probes)) for count in kinds)
    must, should = endpoints("MUST"), endpoints("SHOULD")
    wanted = [*must, *should]
    in_all = share(count(wanted, served), len(wanted))
    return f"""
## In numbers

{len(ENDPOINTS)} endpoints are served. Their requests have {len(probes)} fields:

- {honoured} honoured
- {refused} refused by name
- {disclosed} taken and not acted on, as the answer says
- none ignored

Fields of endpoints in another release are not among them. Of OpenAI's {len(wanted)} endpoints that
are MUST or SHOULD, {in_all} are served: {count(must, served)} of {len(must)} MUST and
{count(should, served)} of {len(should)} SHOULD.
"""


def count(wanted: list[str], served: set[str]) -> int:
    """Return how many endpoints are served."""
    return sum(one in served for one in wanted)


def share(part: int, whole: int) -> str:
    """Return a number and its percentage."""
    return f"{part} ({100 * part / whole:.1f} %)"


if __name__ == "__main__":
    PAGE.write_text(page())

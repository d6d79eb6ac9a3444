"""Write docs/reference/conformance.md from the tables that tests/conformance checks."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conformance.fields.probe import Endpoint, Honoured, Refused  # noqa: E402
from conformance.fields.table import ENDPOINTS  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "conformance.md"
HEAD = """# Conformance

What the server does with each field of each request that OpenAI's SDK can send. A field is
honoured, or refused by its name with a 400; none is silently ignored. `make conformance` sends
every field of this page to a running server, with values that show its effect and with values that
it cannot honour. Written by `scripts/conformance_page.py`.

A field with parts is listed by its parts, unless it is refused as a whole; `[]` stands for each
item of a list. An unknown field of a body is refused by its name too. What answers hold beyond
OpenAI's types is in [extensions.md](extensions.md).
"""


def rows(endpoint: Endpoint) -> list[str]:
    """Return a row a field."""
    found = []
    for name in endpoint.listed():
        probe = endpoint.fields[name]
        if isinstance(probe, Honoured):
            what, values = "honoured", probe.values
        else:
            what, values = "refused", neutral(probe)
        found.append(f"| `{name}` | {what} | {values} |")
    return found


def neutral(probe: Refused) -> str:
    """Return which values of a refused field ask for nothing, and are taken."""
    words = {None: "null", True: "true", False: "false"}
    values = [
        words[value] if value is None or isinstance(value, bool) else str(value).replace("'", '"')
        for value in probe.neutral
    ]
    return "" if not values else "but for " + ", ".join(f"`{value}`" for value in values)


def counted(endpoints: tuple[Endpoint, ...]) -> tuple[int, int]:
    """Return how many fields there are, and how many of them are honoured."""
    probes = [one.fields[name] for one in endpoints for name in one.listed()]
    return len(probes), sum(isinstance(probe, Honoured) for probe in probes)


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for endpoint in ENDPOINTS:
        parts.append(f"\n## `{endpoint}`\n")
        if not endpoint.listed():
            parts.append("No fields but those of the path.\n")
            continue
        parts.append("| field | | values |\n|---|---|---|\n" + "\n".join(rows(endpoint)) + "\n")
        parts += [f"\nThe parts of `{name}`: {why}.\n" for name, why in endpoint.whole.items()]
    every, honoured = counted(ENDPOINTS)
    parts.append(
        f"\n## In numbers\n\n{len(ENDPOINTS)} endpoints, {every} fields: {honoured} honoured"
        f" ({100 * honoured / every:.1f} %), {every - honoured} refused by name"
        f" ({100 * (every - honoured) / every:.1f} %), none ignored.\n"
    )
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())

"""Write docs/reference/settings.md from the settings themselves; a test holds the two together."""

from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tunery.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "settings.md"
HEAD = """# Settings

Environment variables of every process; options of the commands win over them.

| variable | default | what it is |
|---|---|---|
"""


def rows(model: type[BaseModel], prefix: str) -> list[str]:
    """Return a row a setting, nested ones behind their group."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += rows(field.annotation, f"{variable}__")
        else:
            found.append(f"| `{variable}` | {default(field)} | {field.description or ''} |")
    return found


def default(field: FieldInfo) -> str:
    """Return the default as it would be written."""
    return "" if field.default is None else f"`{field.default}`"


def page() -> str:
    """Return the page."""
    return HEAD + "\n".join(rows(Settings, "TUNERY_")) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())

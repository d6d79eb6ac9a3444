"""The documents tell the truth: links lead somewhere, commands exist, settings are all there."""

import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunery.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_the_settings_page_is_what_the_settings_say() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "settings_page.py"))
    assert script["PAGE"].read_text() == script["page"]()


def test_the_conformance_page_is_what_the_tables_say() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "conformance_page.py"))
    assert script["PAGE"].read_text() == script["page"](), "run scripts/conformance_page.py"


def test_every_command_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`tunery ([a-z]+)", (ROOT / "README.md").read_text()))
    assert {"up", "doctor", "keys", "models", "migrate"} <= named
    for command in sorted(named):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0, command


def test_only_the_makefile_names_a_package_index() -> None:
    hosts = re.compile(r"https?://[\w.-]*(?:pytorch|pypi|npmjs|pythonhosted)\.org")
    folders = ("src", "scripts", "docs", "examples", "benchmarks")
    named = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".toml") and hosts.search(path.read_text())
    ]
    assert named == []

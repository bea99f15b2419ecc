"""The documents say what the code has."""

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

import console.settings
import ingest_gateway.settings
import local_stack.settings
import stream_workers.settings

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODELS: list[type[BaseSettings]] = [
    ingest_gateway.settings.Settings,
    console.settings.Settings,
    stream_workers.settings.PackerSettings,
    local_stack.settings.StackSettings,
]
ROW = re.compile(r"^\| `(TALLYLOG_\w+)` \| (?:`(.*?)`)? ?\| (.+) \|$", re.MULTILINE)


def test_every_setting_is_documented_with_its_default() -> None:
    settings = {
        f"TALLYLOG_{name.upper()}": str(field.default)
        for model in MODELS
        for name, field in model.model_fields.items()
    }
    documented = {
        name: default for name, default, _ in ROW.findall((ROOT / "docs/SETTINGS.md").read_text())
    }
    assert documented == settings


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in link:
            assert (path.parent / link).exists(), link


def test_decisions_are_numbered_without_gaps_and_have_their_parts() -> None:
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    for number, path in enumerate(decisions, start=1):
        assert path.name.startswith(f"{number:04d}-")
        text = path.read_text()
        assert text.startswith(f"# {number:04d} ")
        for part in ("**Context.**", "**Decision.**", "**Rejected.**", "**Consequences.**"):
            assert part in text, f"{path.name}: {part}"


def test_settings_named_in_documents_exist() -> None:
    known = {f"TALLYLOG_{name.upper()}" for model in MODELS for name in model.model_fields} | {
        "TALLYLOG_URL",
        "TALLYLOG_API_KEY",
    }  # the README's own
    for path in DOCS:
        assert set(re.findall(r"TALLYLOG_[A-Z_]+[A-Z]", path.read_text())) <= known, path.name

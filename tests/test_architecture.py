"""The map of the code in docs/architecture.md is that of the code."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PACKAGE = ROOT / "pairing_server"


def mapped() -> dict[str, set[str]]:
    """The files that the table names, by folder."""
    found: dict[str, set[str]] = defaultdict(set)
    folder = ""
    for row in re.findall(r"^\| *(?:`(?:(\w+)/)`)? *\| (`.+?) \|", DOCUMENT, re.MULTILINE):
        folder = row[0] or folder
        found[folder] |= set(re.findall(r"`(\w+\.py)`", row[1]))
    return found


MAPPED = mapped()


@pytest.mark.parametrize("folder", sorted(MAPPED))
def test_each_module_stands_in_the_map_and_nothing_that_is_gone(folder: str) -> None:
    assert MAPPED[folder] == {path.name for path in (PACKAGE / folder).glob("*.py")} - {"__init__.py"}


def test_each_part_stands_in_the_map() -> None:
    # Python leaves a folder behind where a module was.
    for part in (path for path in PACKAGE.iterdir() if path.is_file() or any(path.glob("*.*"))):
        if part.name.startswith("__"):
            continue
        name = f"{part.name}/" if part.is_dir() else part.name
        assert f"\n  {name} " in DOCUMENT, name
    for gone in re.findall(r"^  (\w+(?:\.py|/)) ", DOCUMENT, re.MULTILINE):
        assert (PACKAGE / gone).exists(), gone

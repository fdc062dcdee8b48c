"""The code has the structure that docs/architecture.md says it has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PACKAGE = ROOT / "pairing_server"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        path.read_text("utf-8")
    )
    for path in sorted(PACKAGE.rglob("*.py"))
}
METHODS = 25


def mapped() -> set[str]:
    """The folders of the package that stand in the map, as paths."""
    found, parents = set(), [""]
    for indent, name in re.findall(r"^( +)(\w+)/ ", DOCUMENT, re.MULTILINE):
        parents[len(indent) // 2 :] = [name]
        found.add("/".join(parents[1:]))
    return found


def test_the_map_has_each_package_and_nothing_that_is_gone() -> None:
    packages = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert mapped() == packages | {"static"}


def test_each_module_says_what_it_holds() -> None:
    silent = [name for name, tree in MODULES.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []

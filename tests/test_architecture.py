"""The code has the structure that docs/architecture.md says it has."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
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


def imports(name: str) -> set[str]:
    """The modules of ours that a module imports: at its top, in a function, or for types only."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            full = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {module if module in MODULES else node.module for module in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found - {name}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of a circle of imports; none, if there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_imports_form_a_circle() -> None:
    graph = {name: imports(name) for name in MODULES}
    assert "pairing_server.clock" in graph["pairing_server.server.server"]
    assert circle(graph) == []
    assert circle({**graph, "pairing_server.clock": {"pairing_server.server.server"}}) != []


def test_each_module_says_what_it_holds() -> None:
    silent = [name for name, tree in MODULES.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_no_class_is_too_large_to_be_read_as_one_thing() -> None:
    large = defaultdict(int)
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                large[f"{name}.{node.name}"] = sum(
                    isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) for child in node.body
                )
    assert {name: count for name, count in large.items() if count > METHODS} == {}

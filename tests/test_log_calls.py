"""How the program calls its loggers: an event is a constant text, and what varies is in its fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from harness.program import ROOT

METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
# Plain words; an apostrophe and a comma may be in them. What a person greps for has no other signs.
EVENT = re.compile(r"[A-Za-z][A-Za-z ,']*[a-z]")


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted((ROOT / "pairing_server").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("log" | "logger"), attr=name)) if (
                    name in METHODS
                ):
                    yield path, node


def test_an_event_is_a_constant_text_without_values() -> None:
    found = list(calls())
    assert len(found) > 30
    for path, call in found:
        assert isinstance(call.func, ast.Attribute)
        positional = call.args[1:] if call.func.attr == "log" else call.args
        place = f"{path.relative_to(ROOT)}:{call.lineno}"
        match positional:
            case [ast.Constant(str(event))] if EVENT.fullmatch(event):
                pass
            case _:
                raise AssertionError(f"{place}: expected one constant text in plain words, and extra={{…}}")
        assert {keyword.arg for keyword in call.keywords} <= {"extra", "exc_info"}, place

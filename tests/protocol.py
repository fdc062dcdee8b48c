"""docs/protocol.md as tests read it: its named examples, its marked tables and its headings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[1] / "docs" / "protocol.md"
_TEXT = PATH.read_text(encoding="utf-8")
_EXAMPLE = re.compile(r"^<!-- example: (\S+) -->\n```(\w+)\n(.*?\n)```$", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"^<!-- table: (\S+) -->\n((?:\|.*\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A fenced block under its name; `text` is what stands between the fences, without the last newline."""

    name: str
    language: str
    text: str

    @property
    def value(self) -> dict[str, Any]:
        """The JSON object that a `json` block is."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def request(self) -> HTTPRequest:
        """What a `http` block says to send."""
        head, _, body = self.text.partition("\n\n")
        line, *fields = head.splitlines()
        method, _, path = line.partition(" ")
        headers = {name: value for name, _, value in (field.partition(": ") for field in fields)}
        return HTTPRequest(method, path, headers, body.encode())


@dataclass(frozen=True)
class HTTPRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


MARKS = _TEXT.count("<!-- example: ")
NAMES = [name for name, _, _ in _EXAMPLE.findall(_TEXT)]
EXAMPLES = {
    name: Example(name, language, text.removesuffix("\n")) for name, language, text in _EXAMPLE.findall(_TEXT)
}


def _cells(row: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]]


def table(name: str) -> list[dict[str, str]]:
    """The rows of a marked table, each as column title → cell."""
    found = dict(_TABLE.findall(_TEXT))
    titles, _, *rows = found[name].splitlines()
    return [dict(zip(_cells(titles), _cells(row), strict=True)) for row in rows]


def section(title: str, level: int = 2) -> str:
    """The text under a heading, up to the next heading of that level or above."""
    mark = "#" * level
    start = re.search(rf"^{mark} {re.escape(title)}$", _TEXT, re.MULTILINE)
    assert start is not None, f"docs/protocol.md has no heading {mark} {title}"
    end = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE).search(_TEXT, start.end())
    return _TEXT[start.end() : end.start() if end else len(_TEXT)]


def headings(title: str) -> list[str]:
    """The third-level headings in a section."""
    return re.findall(r"^### (.+)$", section(title), re.MULTILINE)


def code(cell: str) -> str:
    """The text of a cell that is nothing but `code`."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    assert found is not None, cell
    return found[1]

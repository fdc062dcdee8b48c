"""Events as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from pairing_server.audit.formats.fields import NAMES, as_json
from pairing_server.audit.store.search import Recorded
from pairing_server.text import plain, plain_json

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def head() -> str:
    """The line of column names."""
    return _row(*NAMES, "name")


def line(recorded: Recorded, names: Mapping[str, str]) -> str:
    """The event's row, with the name of the account that acted."""
    cells = (*as_json(recorded).values(), names.get(recorded.event.actor_subject or ""))
    return _row(*map(_inert, cells))


def _row(*cells: str) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _inert(value: object) -> str:
    """The cell's text, marked as text where a spreadsheet would run it."""
    if isinstance(value, dict):
        value = plain_json(value)
    text = "" if value is None else plain(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text

"""Events for other programs: JSON, CSV for spreadsheets, CEF and OCSF for SIEMs.

Each line holds one event whole. Clients' text was cleaned when it was recorded, and is made plain again for rows that other
programs have written; each format escapes its own syntax. A new format is a module here, a row in MEDIA and a case in `line`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pairing_server.audit.formats import cef, ocsf, tabular
from pairing_server.audit.store.search import Recorded
from pairing_server.text import plain_json

# The formats and their media types.
MEDIA = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "cef": "text/plain; charset=utf-8",
    "ocsf": "application/x-ndjson",
}
# The format that has the seals; its lines come from audit/seals/sealed_lines.py.
SEALED = "jsonl"


def head(form: str) -> str:
    """What comes before the first event."""
    return tabular.head() if form == "csv" else ""


def line(form: str, recorded: Recorded, names: Mapping[str, str]) -> str:
    """The event, with its line's end. `names`: those of accounts, by their subject."""
    if form == "csv":
        return tabular.line(recorded, names)
    if form == "cef":
        return cef.line(recorded, names)
    return plain_json(ocsf.event(recorded, names)) + "\n"

"""Events as lines for other programs: CSV for spreadsheets, CEF for older SIEMs. OCSF: web/audit/ocsf.py.

Each line holds one event whole. Client text has been cleaned when it was recorded; what each form takes for its own
syntax is escaped here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping

from pairing_server.audit.store.search import Recorded
from pairing_server.web.audit import ocsf
from pairing_server.web.audit.answers import AuditEventAnswer

MEDIA = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "cef": "text/plain; charset=utf-8",
    "ocsf": "application/x-ndjson",
}
EVENT = AuditEventAnswer()
_NAMES = (*EVENT.fields, "name")

# CEF counts the other way round: 10 is the worst.
_CEF_SEVERITY = (10, 10, 9, 7, 5, 3, 1, 0)


def head(form: str) -> str:
    """What comes before the first event."""
    return _csv_line(_NAMES) if form == "csv" else ""


def line(form: str, recorded: Recorded, names: Mapping[str, str]) -> str:
    """The event, with its line's end. `names`: those of accounts, by their subject."""
    if form == "csv":
        return _csv(recorded, names)
    if form == "cef":
        return _cef(recorded, names)
    return json.dumps(ocsf.event(recorded, names), ensure_ascii=False, default=str) + "\n"


def _csv_line(cells: tuple[str, ...]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _csv(recorded: Recorded, names: Mapping[str, str]) -> str:
    row = {**EVENT.dump(recorded), "name": names.get(recorded.event.actor_subject or "")}
    return _csv_line(tuple(_inert(row[name]) for name in _NAMES))


def _inert(value: object) -> str:
    """A spreadsheet takes a cell that begins like this for a formula."""
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")) else text


def _cef(recorded: Recorded, names: Mapping[str, str]) -> str:
    event = recorded.event
    head = ("CEF:0", "pairing-server", "pairing-server", event.app_version, event.event)
    told = f"{event.event} {event.outcome}" + (f": {event.reason}" if event.reason else "")
    address = event.address or ""
    fields = {
        "rt": _millis(recorded.recorded_at.timestamp()),
        "start": _millis(event.occurred_at.timestamp()),
        "externalId": event.event_id,
        "cnt": event.count,
        "outcome": event.outcome,
        "reason": event.reason,
        "suid": event.actor_subject,
        "suser": names.get(event.actor_subject or ""),
        "spriv": event.actor_kind,
        "c6a2" if ":" in address else "src": address,
        "c6a2Label": "Source IPv6 Address" if ":" in address else None,
        "dvchost": event.node,
        **_custom("cs1", "pairing", event.pairing_id),
        **_custom("cs2", "connection", event.connection_id),
        **_custom("cs3", "request", event.request_id),
        **_custom("cs4", "attrs", json.dumps(event.attrs, ensure_ascii=False) if event.attrs else None),
        **_custom("cs5", "method", event.auth_method),
        **_custom("cn1", "number", recorded.seq),
    }
    extension = " ".join(
        f"{key}={_escaped(str(value), '=')}" for key, value in fields.items() if value not in (None, "")
    )
    columns = [_escaped(part, "|") for part in (*head, told)]
    return "|".join([*columns, str(_CEF_SEVERITY[event.severity]), extension]) + "\n"


def _custom(key: str, label: str, value: object) -> dict[str, object]:
    return {key: value, f"{key}Label": label if value is not None else None}


def _escaped(text: str, separator: str) -> str:
    """In CEF the separator and the backslash are escaped; in a value, so is a line's end, which a head cannot have."""
    text = text.replace("\\", "\\\\").replace(separator, f"\\{separator}")
    line_end = "\\\\n" if separator == "=" else " "
    return re.sub(r"\r\n|[\r\n\u2028\u2029\x85\x0b\x0c]", line_end, text)


def _millis(seconds: float) -> int:
    return round(seconds * 1000)

"""Events in the Common Event Format, for older SIEMs."""

from __future__ import annotations

from collections.abc import Mapping

from pairing_server.audit.store.search import Recorded
from pairing_server.text import plain, plain_json

# CEF counts the other way round: 10 is the worst.
_CEF_SEVERITY = (10, 10, 9, 7, 5, 3, 1, 0)


def line(recorded: Recorded, names: Mapping[str, str]) -> str:
    """The event, with its line's end."""
    event = recorded.event
    head = ("CEF:0", "pairing-server", "pairing-server", event.app_version, event.event)
    name = f"{event.event} {event.outcome}" + (f": {event.reason}" if event.reason else "")
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
        **_custom("cs4", "attrs", plain_json(event.attrs) if event.attrs else None),
        **_custom("cs5", "method", event.auth_method),
        **_custom("cn1", "number", recorded.seq),
    }
    extension = " ".join(
        f"{key}={_escaped(str(value), '=')}" for key, value in fields.items() if value not in (None, "")
    )
    columns = [_escaped(part, "|") for part in (*head, name)]
    return "|".join([*columns, str(_CEF_SEVERITY[event.severity]), extension]) + "\n"


def _custom(key: str, label: str, value: object) -> dict[str, object]:
    return {key: value, f"{key}Label": label if value is not None else None}


def _escaped(text: str, separator: str) -> str:
    """In CEF the separator and the backslash are escaped; in a value, so is a line's end, which a head cannot have."""
    text = plain("\n".join(text.splitlines()), keep="\n")
    text = text.replace("\\", "\\\\").replace(separator, f"\\{separator}")
    return text.replace("\n", "\\n" if separator == "=" else " ")


def _millis(seconds: float) -> int:
    return round(seconds * 1000)

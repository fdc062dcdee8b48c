"""An event as a JSON object: what the API answers, the command line prints and a spreadsheet has columns for."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pairing_server.audit.store.search import Recorded

NAMES = (
    *("seq", "recorded_at", "occurred_at", "event_id", "event", "severity", "outcome", "reason", "actor"),
    *("actor_kind", "auth_method", "address", "request_id", "connection_id", "pairing_id", "node"),
    *("app_version", "count", "attrs"),
)


def as_json(recorded: Recorded) -> dict[str, Any]:
    """The event's fields, times in RFC 3339."""
    return {name: _plain(_value(recorded, name)) for name in NAMES}


def _value(recorded: Recorded, name: str) -> Any:
    if name in ("seq", "recorded_at"):
        return getattr(recorded, name)
    return getattr(recorded.event, "actor_subject" if name == "actor" else name)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, UUID) else value

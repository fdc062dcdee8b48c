"""Questions to the audit log as text. The answers are in web/audit/handlers.py.

There is one set of filters: the URL's parameters and the command line's options are both made from AuditFilter.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import fields as fields_of
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from marshmallow import ValidationError, fields, validate

from pairing_server.audit.events import EVENTS
from pairing_server.audit.formats import MEDIA
from pairing_server.audit.query import Question
from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.search import Place
from pairing_server.audit.store.tail import Position
from pairing_server.errors import ValidationFailed
from pairing_server.web.schemas import NO_NUL, Schema, storable

OUTCOMES = ("success", "failure", "denied", "error")
# syslog's words, which may stand for the numbers.
SEVERITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
MAX_EVENTS = 20
MAX_SEQ = 2**63 - 1

_AGO = re.compile(r"\A([0-9]{1,6})([smhdw])\Z")
_LONGEST = timedelta(days=40 * 365)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Parsed(fields.Field[Any]):
    """A text that `parse` takes or refuses with ValidationError."""

    def __init__(
        self,
        parse: Callable[[str], Any],
        description: str,
        example: str,
        validate: validate.Length | None = None,
    ) -> None:
        metadata = {"description": description, "type": "string", "example": example}
        super().__init__(validate=validate, metadata=metadata)
        self._parse = parse

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return self._parse(str(value))


def when(text: str) -> datetime | timedelta:
    """A time: RFC 3339 (without a zone: UTC), or how long ago such as 30m, 24h, 7d."""
    try:
        if found := _AGO.match(text):
            ago = timedelta(**{_UNITS[found[2]]: int(found[1])})
            if ago > _LONGEST:
                raise ValueError
            return ago
        parsed = datetime.fromisoformat(text)
        # Kept in UTC, where the first and the last year may have no such moment.
        instant = parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValidationError(
            f"{text[:40]!r} is no time; give 2026-01-31T12:00:00Z, 2026-01-31, or 24h for a day ago"
        ) from None
    storable(instant)
    return instant


def events(text: str) -> str:
    """Names of events, or families such as auth.*, with commas between them."""
    names = [name.strip() for name in text.split(",")]
    if len(names) > MAX_EVENTS:
        raise ValidationError(f"Give at most {MAX_EVENTS}.")
    for name in names:
        _check_event(name)
    return ",".join(dict.fromkeys(names))


def _check_event(name: str) -> None:
    if name in EVENTS or (name.endswith(".*") and any(event.startswith(name[:-1]) for event in EVENTS)):
        return
    families = sorted({f"{event.partition('.')[0]}.*" for event in EVENTS})
    near = get_close_matches(name, [*EVENTS, *families], 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"families are {', '.join(families)}"
    raise ValidationError(f"There is no event {name[:64]!r}; {hint}")


def network(text: str) -> IPv4Network | IPv6Network:
    """An address, or a network such as 10.0.0.0/8."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValidationError(f"{text[:60]!r} is no address or network such as 10.0.0.0/8") from None


def severity(text: str) -> int:
    """0 to 7, or syslog's word for it."""
    if text in SEVERITIES:
        return SEVERITIES.index(text)
    if re.fullmatch("[0-7]", text):
        return int(text)
    raise ValidationError(f"Must be 0 to 7, or one of {', '.join(SEVERITIES)}.")


def _text(length: int, description: str) -> fields.String:
    checks = [validate.Length(1, length), NO_NUL]
    return fields.String(validate=checks, metadata={"description": description, "type": "string"})


class AuditFilter(Schema):
    """Which events. Each field's description is the help of the command's option, too."""

    since = Parsed(when, "From then on: a time, or 30m, 24h, 7d ago", example="24h")
    until = Parsed(when, "Before then: a time, or how long ago", example="2026-01-31T12:00:00Z")
    event = Parsed(
        events,
        "Names or families, with commas: auth.*,pairing.redeem",
        validate=validate.Length(1, 1000),
        example="auth.*",
    )
    user = _text(256, "Who acted: the name of an account")
    actor = _text(512, "Who acted: a subject, as in a token")
    address = Parsed(network, "The client's address, or a network such as 10.0.0.0/8", example="10.0.0.0/8")
    pairing = fields.UUID(metadata={"description": "The id of a pairing", "type": "string", "format": "uuid"})
    connection = fields.UUID(
        metadata={"description": "The id of a connection", "type": "string", "format": "uuid"}
    )
    outcome = fields.String(
        validate=validate.OneOf(OUTCOMES), metadata={"description": "success, failure, denied or error"}
    )
    severity = Parsed(
        severity, "This severe or more: 0 to 7, or a word such as warning (4)", example="warning"
    )


class AuditTimes(AuditFilter):
    """Only when."""

    class Meta(AuditFilter.Meta):
        fields = ("since", "until")


class AuditQuery(AuditFilter):
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 500))
    after = fields.String(
        metadata={"description": "`next` of the page before"}, validate=validate.Length(1, 80)
    )


class AuditFollowQuery(AuditFilter):
    class Meta(AuditFilter.Meta):
        exclude = ("since", "until")

    after = fields.String(
        metadata={"description": "`next` of the answer before"}, validate=validate.Length(1, 80)
    )
    wait = fields.Integer(load_default=0, validate=validate.Range(0, 20), metadata={"description": "seconds"})


class AuditExportQuery(AuditFilter):
    format = fields.String(
        load_default="jsonl",
        validate=validate.OneOf([*MEDIA]),
        metadata={"description": "jsonl (with the seals), csv, cef or ocsf"},
    )


_PARTS = {part.name for part in fields_of(Filter)}


def question_of(loaded: Mapping[str, Any], now: datetime) -> Question:
    """The question in what AuditFilter has loaded."""
    given: dict[str, Any] = {
        name: now - value if isinstance(value, timedelta) else value
        for name, value in loaded.items()
        if name in _PARTS
    }
    return Question(Filter(**given), loaded.get("user"))


def to_page_cursor(place: Place) -> str:
    """The place as an opaque text, for the next page."""
    micros = round(place.recorded_at.timestamp() * 1_000_000)
    return base64.urlsafe_b64encode(f"{micros}.{place.seq}".encode()).decode().rstrip("=")


def from_page_cursor(text: str) -> Place:
    """Raises ValidationFailed if the text was not made here."""
    try:
        micros, _, seq = (
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").partition(".")
        )
        seconds, rest = divmod(int(micros), 1_000_000)
        if not 0 <= int(seq) <= MAX_SEQ:
            raise ValueError
        return Place(datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest), int(seq))
    except (ValueError, OverflowError, OSError, binascii.Error):
        raise ValidationFailed(fields={"after": ["Must be `next` of the page before."]}) from None


def to_follow_cursor(token: str, position: Position) -> str:
    """Where to go on following, as an opaque text."""
    return f"{position.xid}.{position.seq}.{token}"


def from_follow_cursor(text: str) -> tuple[str, Position]:
    """Raises ValidationFailed if the text was not made here."""
    found = re.fullmatch(r"([0-9]{1,18})\.(-1|[0-9]{1,18})\.([A-Za-z0-9_-]{0,40})", text, re.ASCII)
    if found is None:
        raise ValidationFailed(fields={"after": ["Must be `next` of the answer before."]})
    return found[3], Position(int(found[1]), int(found[2]))

"""Questions to the audit log, as people write them. The answers are in web/audit/answers.py.

There is one set of filters: the URL's parameters and the command line's options are both made from AuditFilter.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
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


class When(fields.Field[datetime | timedelta]):
    """A time: RFC 3339 (without a zone: UTC), or how long ago such as 30m, 24h, 7d."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> datetime | timedelta:
        text = str(value)
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


class Events(fields.String):
    """Names of events, or families such as auth.*, with commas between them."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> str:
        names = [name.strip() for name in str(super()._deserialize(value, attr, data, **kwargs)).split(",")]
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


class Network(fields.Field[IPv4Network | IPv6Network]):
    """An address, or a network such as 10.0.0.0/8."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> IPv4Network | IPv6Network:
        try:
            return ip_network(str(value), strict=False)
        except ValueError:
            raise ValidationError(
                f"{str(value)[:60]!r} is no address or network such as 10.0.0.0/8"
            ) from None


class Severity(fields.Field[int]):
    """0 to 7, or syslog's word for it."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> int:
        text = str(value)
        if text in SEVERITIES:
            return SEVERITIES.index(text)
        if re.fullmatch("[0-7]", text):
            return int(text)
        raise ValidationError(f"Must be 0 to 7, or one of {', '.join(SEVERITIES)}.")


def _described(text: str, **more: Any) -> dict[str, Any]:
    return {"description": text, "type": "string", **more}


class AuditFilter(Schema):
    """Which events. Each field's description is the help of the command's option, too."""

    since = When(metadata=_described("From then on: a time, or 30m, 24h, 7d ago", example="24h"))
    until = When(metadata=_described("Before then: a time, or how long ago", example="2026-01-31T12:00:00Z"))
    event = Events(
        validate=validate.Length(1, 1000),
        metadata=_described("Names or families, with commas: auth.*,pairing.redeem", example="auth.*"),
    )
    user = fields.String(
        validate=[validate.Length(1, 256), NO_NUL], metadata=_described("Who acted: the name of an account")
    )
    actor = fields.String(
        validate=[validate.Length(1, 512), NO_NUL], metadata=_described("Who acted: a subject, as in a token")
    )
    address = Network(
        metadata=_described("The client's address, or a network such as 10.0.0.0/8", example="10.0.0.0/8")
    )
    pairing = fields.UUID(metadata=_described("The id of a pairing", format="uuid"))
    connection = fields.UUID(metadata=_described("The id of a connection", format="uuid"))
    outcome = fields.String(
        validate=validate.OneOf(OUTCOMES), metadata={"description": "success, failure, denied or error"}
    )
    severity = Severity(
        metadata=_described("This severe or more: 0 to 7, or a word such as warning (4)", example="warning")
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


def to_page_word(place: Place) -> str:
    """The place, as an opaque word for the next page."""
    micros = round(place.recorded_at.timestamp() * 1_000_000)
    return base64.urlsafe_b64encode(f"{micros}.{place.seq}".encode()).decode().rstrip("=")


def from_page_word(text: str) -> Place:
    """Raises ValidationFailed if the word is none of ours."""
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


def to_follow_word(word: str, position: Position) -> str:
    """Where to go on following, as an opaque word."""
    return f"{position.xid}.{position.seq}.{word}"


def from_follow_word(text: str) -> tuple[str, Position]:
    """Raises ValidationFailed if the word is none of ours."""
    found = re.fullmatch(r"([0-9]{1,18})\.(-1|[0-9]{1,18})\.([A-Za-z0-9_-]{0,40})", text, re.ASCII)
    if found is None:
        raise ValidationFailed(fields={"after": ["Must be `next` of the answer before."]})
    return found[3], Position(int(found[1]), int(found[2]))

"""The audit log over HTTP, for auditors and admins."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from ipaddress import ip_network

from pairing_server.errors import ValidationFailed
from pairing_server.services import audit
from pairing_server.store.audit import Filter, Recorded
from pairing_server.web import schemas
from pairing_server.web.bearer import AuthenticatedHandler
from pairing_server.web.edge import utcnow

QUERY = schemas.AuditQuery()
EVENTS = schemas.AuditAnswer()
MAX_SEQ = 2**63 - 1


def to_cursor(last: Recorded) -> str:
    """The place of an event, as an opaque word for the next page."""
    micros = round(last.recorded_at.timestamp() * 1_000_000)
    return base64.urlsafe_b64encode(f"{micros}.{last.seq}".encode()).decode().rstrip("=")


def from_cursor(text: str) -> tuple[datetime, int]:
    """Raises ValidationFailed if the word is none of ours."""
    try:
        micros, _, seq = (
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").partition(".")
        )
        seconds, rest = divmod(int(micros), 1_000_000)
        if not 0 <= int(seq) <= MAX_SEQ:
            raise ValueError
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest), int(seq)
    except (ValueError, OverflowError, OSError, binascii.Error):
        raise ValidationFailed(fields={"after": ["Must be `next` of the page before."]}) from None


class AuditHandler(AuthenticatedHandler):
    """GET /api/audit: what has happened, newest first, filtered, in pages."""

    async def get(self) -> None:
        query = self.read_query(QUERY)
        try:
            network = ip_network(query["address"], strict=False) if "address" in query else None
        except ValueError:
            raise ValidationFailed(fields={"address": ["Must be an address or a network."]}) from None
        names = ("since", "until", "event", "actor", "pairing", "outcome")
        which = Filter(address=network, **{name: query[name] for name in names if name in query})
        before = from_cursor(query["after"]) if "after" in query else None
        limit = query["limit"]
        found = await audit.list_events(self.deps, self.caller, which, limit, before, now=utcnow())
        self.answer(EVENTS, {"events": found, "next": to_cursor(found[-1]) if len(found) == limit else None})

"""The audit log over HTTP, for auditors and admins."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from pairing_server.errors import ValidationFailed
from pairing_server.services import audit_reading
from pairing_server.store.audit_search import Place
from pairing_server.web import audit_schemas as schemas
from pairing_server.web.bearer import AuthenticatedHandler
from pairing_server.web.edge import utcnow

QUERY = schemas.AuditQuery()
EVENTS = schemas.AuditAnswer()
EVENT = schemas.AuditOneAnswer()
MAX_SEQ = 2**63 - 1


def to_cursor(place: Place) -> str:
    """The place, as an opaque word for the next page."""
    micros = round(place.recorded_at.timestamp() * 1_000_000)
    return base64.urlsafe_b64encode(f"{micros}.{place.seq}".encode()).decode().rstrip("=")


def from_cursor(text: str) -> Place:
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


class AuditHandler(AuthenticatedHandler):
    """GET /api/audit: what has happened, newest first, filtered, in pages."""

    async def get(self) -> None:
        query, now = self.read_query(QUERY), utcnow()
        before = from_cursor(query["after"]) if "after" in query else None
        listed = await audit_reading.list_events(
            self.deps, self.caller, schemas.question_of(query, now), query["limit"], before, now
        )
        following = None if listed.next is None else to_cursor(listed.next)
        self.answer(EVENTS, {"events": listed.events, "next": following, "names": listed.names})


class AuditEventHandler(AuthenticatedHandler):
    """GET /api/audit/events/{seq}: one event."""

    async def get(self, seq: str) -> None:
        listed = await audit_reading.one_event(self.deps, self.caller, min(int(seq), MAX_SEQ), utcnow())
        self.answer(EVENT, {"event": listed.events[0], "names": listed.names})

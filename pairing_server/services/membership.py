"""Membership: whose device a session id is, and who may enter and leave a pairing's channel."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import (
    ChannelFull,
    ConnectedElsewhere,
    InvalidChannel,
    PairingServerError,
    SessionConflict,
)
from pairing_server.relay.hub import Hub
from pairing_server.relay.members import OTHER
from pairing_server.relay.settings.document import SettingsSnapshot
from pairing_server.request_context import RequestContext
from pairing_server.services.account_status import require_login
from pairing_server.services.codes import Codes
from pairing_server.services.pairing_changes import announce_end
from pairing_server.services.rules import PairingRules
from pairing_server.services.settings_documents import SettingsKeeper
from pairing_server.store import logins, users
from pairing_server.store import membership as devices
from pairing_server.store import pairings as store
from pairing_server.store.audit_events import Event
from pairing_server.store.membership import Known, Rejoin
from pairing_server.store.pairings import Entering, Pairing, Seat

log = logging.getLogger(__name__)

# What a desktop calls itself in `identify` whose pairing is only a trial: `pairing-server doctor`.
TRIAL = "pairing-server doctor"


@dataclass(frozen=True, slots=True)
class Admitted:
    """The pairing that a device may enter. `kept`: the settings its channel goes on from, if it is not live here."""

    pairing: Pairing
    kept: SettingsSnapshot | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A device asks for a seat in the channel. `macs`: the code's, the newest key's first."""

    channel: str
    role: str
    session_id: str
    macs: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class MembershipService:
    database: Database
    audit: AuditLog
    hub: Hub
    codes: Codes
    settings: SettingsKeeper
    rules: PairingRules
    node: UUID

    async def identify(self, context: RequestContext, session_id: str, device_type: str) -> None:
        """Bind the session id to the caller. Raises SessionConflict, LoginEnded."""
        known = _known(context, session_id)
        if known is not None and await devices.is_known(self.database.once, known, context.now):
            return
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            refusal = await self._bind(conn, session_id, device_type, context)
        if refusal is not None:
            raise refusal

    async def _bind(
        self, conn: AsyncConnection, session_id: str, device_type: str, context: RequestContext
    ) -> SessionConflict | None:
        """Bind the session id to the user on first use. The conflict if it is another user's: recorded, to be raised
        when the transaction has ended."""
        if context.subject is None:
            return None
        owner, new = await users.bind_session(conn, session_id, context.subject, device_type, context.now)
        if owner != context.subject:
            return await conflict(self.audit, conn, session_id, owner, context)
        if new:
            event = bound_event(self.audit, session_id, device_type, context)
            self.audit.count(event)
            await self.audit.record(conn, event)
        return None

    async def admit(self, context: RequestContext, channel: str, role: str, session_id: str) -> Admitted:
        """Let the device into the channel of its own pairing.

        A device that comes back is let in by one statement; all others are decided about, and recorded, in a transaction.
        Raises InvalidChannel, ChannelFull (both seats are taken), SessionConflict, LoginEnded, ConnectedElsewhere.
        """
        entry = Entry(channel, role, session_id, self.codes.macs(Codes.of_channel(channel)))
        return await self._readmit(entry, context) or await self._admit(entry, context)

    async def _readmit(self, entry: Entry, context: RequestContext) -> Admitted | None:
        """Let the device into its own seat. None if that is not plainly its own."""
        known = _known(context, entry.session_id)
        if known is None:
            return None
        live = self.hub.channel_named(entry.channel)
        here = None if live is None else live.pairing_id
        met = here if here is not None and self.hub.is_present(here, OTHER[entry.role]) else None
        coming = Rejoin(known, entry.role, entry.macs, met=met, live=here, node=self.node)
        found = await devices.enter(self.database.once, coming, context.now)
        if found is None:
            return None
        return Admitted(found.pairing, None if found.kept is None else SettingsSnapshot(*found.kept))

    async def _admit(self, entry: Entry, context: RequestContext) -> Admitted:
        role, seat = entry.role, Seat(entry.session_id, context.subject)
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            refusal: PairingServerError | None = await self._bind(conn, entry.session_id, role, context)
            pairing = kept = None
            if refusal is None:
                pairing = await store.by_code(conn, entry.macs)
                refusal = self._refusal(pairing, entry, seat)
            if refusal is None and pairing is not None:
                both = self.hub.is_present(pairing.id, OTHER[role])
                entering = Entering(
                    pairing.id, role, seat, both_present=both, node=self.node, mac=entry.macs[0]
                )
                entered = await store.enter(conn, entering, context.now)
                if entered is None and await store.is_elsewhere(conn, pairing.id, self.node):
                    refusal = self._elsewhere(entry.channel, pairing.id)
                elif entered is None:
                    refusal = _ended(entry.channel, pairing)
                elif pairing.seen_at is not None:
                    kept = await self.settings.of_pairing(conn, pairing.id)
                pairing = entered or pairing
            if refusal is not None and not isinstance(refusal, SessionConflict):
                await self.audit.refuse(conn, self._denied(refusal, pairing, context))
        if isinstance(refusal, ChannelFull) and pairing is not None:
            self.hub.announce_intruder(pairing.id, role)
        if refusal is not None or pairing is None:
            raise refusal or InvalidChannel(channel=entry.channel)
        return Admitted(pairing, kept)

    def _elsewhere(self, channel: str, pairing_id: UUID) -> ConnectedElsewhere:
        self.hub.context.counters.joins_elsewhere += 1
        log.warning("join refused", extra={"reason": "elsewhere", "pairing_id": str(pairing_id)})
        return ConnectedElsewhere(channel=channel, reason="elsewhere")

    def _refusal(self, pairing: Pairing | None, entry: Entry, seat: Seat) -> PairingServerError | None:
        if pairing is None:
            return InvalidChannel(channel=entry.channel)
        if not self._is_seat(pairing, entry.role, seat):
            if pairing.live and pairing.mobile is not None:
                channel = self.hub.channels.get(pairing.id)
                count = len(channel.members) if channel else 0
                return ChannelFull(channel=entry.channel, max_devices=2, current_devices=count)
            return InvalidChannel(channel=entry.channel)
        return None if pairing.live else _ended(entry.channel, pairing)

    def _is_seat(self, pairing: Pairing, role: str, seat: Seat) -> bool:
        """Whether the seat is this session's and user's, or a guest's that this session may claim."""
        own = pairing.seat(role)
        if own is None or own.session_id != seat.session_id:
            return False
        if own.user is not None:
            return own.user == seat.user
        other = pairing.seat(OTHER[role])
        return not (self.rules.same_user and other and other.user not in (None, seat.user))

    def _denied(self, refusal: PairingServerError, pairing: Pairing | None, context: RequestContext) -> Event:
        reason = "full" if isinstance(refusal, ChannelFull) else "unknown" if pairing is None else "not_yours"
        if isinstance(refusal, ConnectedElsewhere):
            reason = "elsewhere"
        elif "reason" in refusal.details:
            reason = "ended"
        pairing_id = pairing.id if pairing else None
        mark = {"trial": True} if self._is_trial(pairing) else {}
        return self.audit.event(
            "channel.denied", "denied", context, reason=reason, pairing_id=pairing_id, **mark
        )

    def _is_trial(self, pairing: Pairing | None) -> bool:
        """Whether the desktop that is intruded upon says that it is `doctor`. An intruder cannot say so for it."""
        desktop = None
        if pairing is not None:
            desktop = self.hub.connection_of(pairing.desktop.user, pairing.desktop.session_id)
        return desktop is not None and desktop.device is not None and desktop.device.user_agent == TRIAL

    async def unpair(self, context: RequestContext, pairing_id: UUID, role: str) -> None:
        """A member ends its pairing for good: the other's channel closes with "unpaired". Raises LoginEnded."""
        earlier: Pairing | None = None
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            ended = await store.end(conn, pairing_id, "unpaired", context.now)
            if ended is not None:
                await self.audit.record(conn, closed_event(self.audit, ended, "unpaired", context))
            else:
                # It has ended otherwise, or by this member, who had no answer.
                earlier = await store.by_id(conn, pairing_id)
        seat = ended.seat(role) if ended else None
        if ended is not None and seat is not None:
            announce_end(self.hub, ended, {role: seat.session_id})
        elif earlier is not None:
            announce_end(self.hub, earlier)
        else:
            self.hub.end_channel(pairing_id, "unpaired", {})


def _known(context: RequestContext, session_id: str) -> Known | None:
    if context.subject is None:
        return None
    return Known(logins.caller(context), context.subject, session_id)


def _ended(channel: str, pairing: Pairing) -> InvalidChannel:
    return InvalidChannel(channel=channel, reason=pairing.end_reason or "expired")


async def conflict(
    audit: AuditLog, conn: AsyncConnection, session_id: str, owner: str, context: RequestContext
) -> SessionConflict:
    """Record that a caller used another user's session id. The error to be raised."""
    attempt = audit.event("session.hijack_attempt", "denied", context, session_id=session_id, owner=owner)
    await audit.refuse(conn, attempt)
    return SessionConflict()


def bound_event(audit: AuditLog, session_id: str, device_type: str, context: RequestContext) -> Event:
    """A draft: that the session id is now the caller's."""
    return audit.draft("session.bound", "success", context, session_id=session_id, device_type=device_type)


def closed_event(audit: AuditLog, pairing: Pairing, reason: str, context: RequestContext) -> Event:
    """That the pairing has ended, and how long its devices had it."""
    since = pairing.activated_at or pairing.created_at
    return audit.event(
        "pairing.closed",
        "success",
        context,
        reason=reason,
        pairing_id=pairing.id,
        duration_s=round((context.now - since).total_seconds()),
    )

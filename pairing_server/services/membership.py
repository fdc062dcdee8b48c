"""Membership: whose device a session id is, and who may enter and leave a pairing's channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.errors import ChannelFull, InvalidChannel, PairingServerError, SessionConflict
from pairing_server.relay.members import OTHER
from pairing_server.relay.settings.document import SettingsSnapshot
from pairing_server.request_context import RequestContext
from pairing_server.services import settings_documents
from pairing_server.services.account_status import account_of, require_enabled
from pairing_server.services.codes import Codes
from pairing_server.services.deps import Deps
from pairing_server.store import membership as devices
from pairing_server.store import pairings as store
from pairing_server.store import users
from pairing_server.store.audit_events import Event
from pairing_server.store.membership import Known
from pairing_server.store.pairings import Pairing, Seat


@dataclass(frozen=True, slots=True)
class Admitted:
    """The pairing that a device may enter. `kept`: the settings its channel goes on from, if it is not live here."""

    pairing: Pairing
    kept: SettingsSnapshot | None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a device asks for: a seat in the channel, by the code's `macs`, the newest key's first."""

    channel: str
    role: str
    session_id: str
    macs: Sequence[bytes]


async def bind(
    deps: Deps, conn: AsyncConnection, seat: Seat, device_type: str, context: RequestContext
) -> SessionConflict | None:
    """Bind the session id to the user on first use. The conflict if it is another's: recorded, to be raised
    when the transaction has ended."""
    if seat.user is None:
        return None
    owner, new = await users.bind_session(conn, seat.session_id, seat.user, device_type, context.now)
    if owner != seat.user:
        return await conflict(deps, conn, seat.session_id, owner, context)
    if new:
        event = bound_event(deps, seat.session_id, device_type, context)
        deps.audit.count(event)
        await deps.audit.record(conn, event)
    return None


async def conflict(
    deps: Deps, conn: AsyncConnection, session_id: str, owner: str, context: RequestContext
) -> SessionConflict:
    """Record that somebody came with another user's session id. The error to be raised."""
    attempt = deps.audit.event(
        "session.hijack_attempt", "denied", context, session_id=session_id, owner=owner
    )
    await deps.audit.refuse(conn, attempt)
    return SessionConflict()


def bound_event(deps: Deps, session_id: str, device_type: str, context: RequestContext) -> Event:
    """A draft: that the session id is now the caller's."""
    return deps.audit.draft(
        "session.bound", "success", context, session_id=session_id, device_type=device_type
    )


async def identify(deps: Deps, session_id: str, device_type: str, context: RequestContext) -> None:
    """Bind the session id to the caller. Raises SessionConflict, InvalidToken (account disabled)."""
    known = _known(context, session_id)
    if known is not None and await devices.is_known(deps.database.once, known, context.now):
        return
    async with deps.database.transaction() as conn:
        await require_enabled(conn, context.subject)
        refusal = await bind(deps, conn, Seat(session_id, context.subject), device_type, context)
    if refusal is not None:
        raise refusal


async def admit(deps: Deps, channel: str, role: str, session_id: str, context: RequestContext) -> Admitted:
    """Let the device into the channel of its own pairing, and nobody else.

    Who comes back is let in by one statement; all others are decided about, and recorded, in a transaction.
    Raises InvalidChannel, ChannelFull (both seats taken by others), SessionConflict.
    """
    entry = Entry(channel, role, session_id, deps.codes.macs(Codes.of_channel(channel)))
    return await _readmit(deps, entry, context) or await _admit(deps, entry, context)


def _known(context: RequestContext, session_id: str) -> Known | None:
    """Raises InvalidToken if there can be no such account."""
    if context.subject is None:
        return None
    return Known(account_of(context.subject), context.subject, session_id)


async def _readmit(deps: Deps, entry: Entry, context: RequestContext) -> Admitted | None:
    """Let the device into its own seat. None if that is not plainly its own."""
    known = _known(context, entry.session_id)
    if known is None:
        return None
    live = deps.hub.named(entry.channel)
    here = None if live is None else live.pairing_id
    met = here if here is not None and deps.hub.present(here, OTHER[entry.role]) else None
    found = await devices.enter(
        deps.database.once, known, entry.role, entry.macs, context.now, met=met, live=here
    )
    if found is None:
        return None
    return Admitted(found.pairing, None if found.kept is None else SettingsSnapshot(*found.kept))


async def _admit(deps: Deps, entry: Entry, context: RequestContext) -> Admitted:
    channel, role, macs = entry.channel, entry.role, entry.macs
    seat = Seat(entry.session_id, context.subject)
    async with deps.database.transaction() as conn:
        await require_enabled(conn, context.subject)
        refusal: PairingServerError | None = await bind(deps, conn, seat, role, context)
        pairing = kept = None
        if refusal is None:
            pairing = await store.by_code(conn, macs)
            refusal = _refusal(deps, pairing, channel, role, seat)
        if refusal is None and pairing is not None:
            present = deps.hub.present(pairing.id, OTHER[role])
            entered = await store.enter(
                conn, pairing.id, role, seat, context.now, both_present=present, mac=macs[0]
            )
            if entered is None:
                refusal = _ended(channel, pairing)
            elif pairing.seen_at is not None:
                kept = await settings_documents.kept_for(deps, conn, pairing.id)
            pairing = entered or pairing
        if refusal is not None and not isinstance(refusal, SessionConflict):
            await deps.audit.refuse(conn, _denied(deps, refusal, pairing, context))
    if isinstance(refusal, ChannelFull) and pairing is not None and pairing.id in deps.hub.channels:
        deps.hub.channels[pairing.id].refuse_intruder(role, deps.hub.now())
    if refusal is not None or pairing is None:
        raise refusal or InvalidChannel(channel=channel)
    return Admitted(pairing, kept)


def _refusal(
    deps: Deps, pairing: Pairing | None, channel: str, role: str, seat: Seat
) -> PairingServerError | None:
    if pairing is None:
        return InvalidChannel(channel=channel)
    if not _is_seat(deps, pairing, role, seat):
        if pairing.live and pairing.mobile is not None:
            held = deps.hub.channels.get(pairing.id)
            count = len(held.members) if held else 0
            return ChannelFull(channel=channel, max_devices=2, current_devices=count)
        return InvalidChannel(channel=channel)
    return None if pairing.live else _ended(channel, pairing)


def _is_seat(deps: Deps, pairing: Pairing, role: str, seat: Seat) -> bool:
    """Whether the seat is this session's and user's, or a guest's that this session may claim."""
    own = pairing.seat(role)
    if own is None or own.session_id != seat.session_id:
        return False
    if own.user is not None:
        return own.user == seat.user
    other = pairing.seat(OTHER[role])
    return not (deps.rules.same_user and other and other.user not in (None, seat.user))


def _ended(channel: str, pairing: Pairing) -> InvalidChannel:
    return InvalidChannel(channel=channel, reason=pairing.end_reason or "expired")


def _denied(
    deps: Deps, refusal: PairingServerError, pairing: Pairing | None, context: RequestContext
) -> Event:
    reason = "full" if isinstance(refusal, ChannelFull) else "unknown" if pairing is None else "not_yours"
    if "reason" in refusal.details:
        reason = "ended"
    pairing_id = pairing.id if pairing else None
    return deps.audit.event("channel.denied", "denied", context, reason=reason, pairing_id=pairing_id)


async def unpair_from_channel(deps: Deps, pairing_id: UUID, role: str, context: RequestContext) -> None:
    """A member ends its pairing for good: the other is told that it must not come back."""
    async with deps.database.transaction() as conn:
        ended = await store.end(conn, pairing_id, "unpaired", context.now)
        if ended is not None:
            await deps.audit.record(conn, closed_event(deps, ended, "unpaired", context))
    seat = ended.seat(role) if ended else None
    deps.hub.end(pairing_id, "unpaired", {role: seat.session_id} if seat else {})


def both_gone(pairing: Pairing) -> dict[str, str]:
    """The session ids of both members by role: neither comes back."""
    gone = {"desktop": pairing.desktop.session_id}
    if pairing.mobile is not None:
        gone["mobile"] = pairing.mobile.session_id
    return gone


def closed_event(deps: Deps, pairing: Pairing, reason: str, context: RequestContext) -> Event:
    """That the pairing has ended, and how long its devices had it."""
    since = pairing.activated_at or pairing.created_at
    return deps.audit.event(
        "pairing.closed",
        "success",
        context,
        reason=reason,
        pairing_id=pairing.id,
        duration_s=round((context.now - since).total_seconds()),
    )

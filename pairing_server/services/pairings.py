"""Pairing: draw a code, redeem it, join its channel, end it. One function, one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.errors import (
    ChannelFull,
    InvalidChannel,
    InvalidCode,
    NotFound,
    PairingServerError,
    RateLimited,
    SessionConflict,
    Unavailable,
    ValidationFailed,
)
from pairing_server.security.limits import REDEEM_ADDRESS, REDEEM_USER, SlidingWindow
from pairing_server.services import attempts
from pairing_server.services.accounts import require_enabled
from pairing_server.services.attempts import Counted, Lockout
from pairing_server.services.deps import Caller, Codes, Deps
from pairing_server.store import pairings as store
from pairing_server.store import users
from pairing_server.store.audit import Event
from pairing_server.store.pairings import Pairing, Seat

# How many codes are drawn at once. With 90 % of all names taken a thousand draws miss all free ones
# once in 10⁴⁵ times, so drawing never takes more than these statements.
_DRAWS = (8, 1000)


@dataclass(frozen=True, slots=True)
class Code:
    """A code that was given out, and until when it works."""

    code: str
    pairing_id: UUID
    created_at: datetime
    expires_at: datetime

    @property
    def channel(self) -> str:
        return Codes.channel(self.code)

    @property
    def expires_in(self) -> int:
        """Seconds from when it was made."""
        return round((self.expires_at - self.created_at).total_seconds())


async def generate(deps: Deps, desktop_session: str, caller: Caller, now: datetime) -> Code:
    """A new code for this desktop session; its pending one is superseded.

    Raises SessionConflict, RateLimited (codes made, codes waiting), Unavailable (too many live).
    """
    rules = deps.rules
    if deps.live.count >= rules.max_live_codes:
        raise Unavailable("Too many codes are waiting just now; try again in a minute.", retry_after_s=30)
    async with deps.turns.of(f"codes {caller.subject or caller.address_key}"):
        _check_rate(deps, caller, now)
        made, superseded = await _generate(deps, Seat(desktop_session, caller.subject), caller, now)
        for window, key in _windows(deps, caller):
            window.charge(key, now.timestamp())
    deps.live.count += 1 - len(superseded)
    for pairing_id in superseded:
        deps.hub.lapse(pairing_id, "superseded")
    return made


def _windows(deps: Deps, caller: Caller) -> list[tuple[SlidingWindow, str]]:
    """What counts the codes this caller makes; local to the process, unlike what guards guesses."""
    windows = [(deps.codes_by_address, caller.address_key)]
    return windows if caller.subject is None else [*windows, (deps.codes_by_user, caller.subject)]


def _check_rate(deps: Deps, caller: Caller, now: datetime) -> None:
    wait = max(window.wait(key, now.timestamp()) for window, key in _windows(deps, caller))
    if wait:
        raise RateLimited(wait, "Too many codes were made; use the one you have.", limit="codes")


async def _generate(deps: Deps, desktop: Seat, caller: Caller, now: datetime) -> tuple[Code, list[UUID]]:
    """The new code, and the pairings it has superseded."""
    refusal: PairingServerError | None = None
    superseded: list[UUID] = []
    made = None
    async with deps.database.transaction() as conn:
        await require_enabled(conn, caller.subject)
        await _check_waiting(deps, conn, desktop, now)
        refusal = await _bind(deps, conn, desktop, "desktop", caller, now)
        if refusal is None:
            superseded = await store.supersede_pending(conn, desktop, now)
            made = await _draw(deps, conn, desktop, now)
        if made is not None:
            await deps.audit.record(conn, _created(deps, made, desktop, caller, now))
    if made is None:
        raise refusal or Unavailable("No free code was found; try again.")
    return made, superseded


async def _check_waiting(deps: Deps, conn: AsyncConnection, desktop: Seat, now: datetime) -> None:
    """Raises RateLimited if the user has as many codes waiting as he may."""
    if desktop.user is None:
        return
    waiting = await store.pending_of(conn, desktop.user, desktop.session_id, now)
    if waiting >= deps.rules.codes_per_user:
        raise RateLimited(deps.rules.code_ttl, "Too many codes of yours are waiting.", limit="codes_per_user")


async def _draw(deps: Deps, conn: AsyncConnection, desktop: Seat, now: datetime) -> Code | None:
    expires_at = now + timedelta(seconds=deps.rules.code_ttl)
    for count in _DRAWS:
        drawn = deps.codes.draw(count)
        pairing_id = uuid4()
        mac = await store.add(
            conn, pairing_id, [draw for _, draw in drawn.values()], desktop, now, expires_at
        )
        if mac is not None:
            return Code(drawn[mac][0], pairing_id, now, expires_at)
    return None


def _created(deps: Deps, made: Code, desktop: Seat, caller: Caller, now: datetime) -> Event:
    return deps.audit.event(
        "pairing.code_created",
        "success",
        caller,
        now,
        pairing_id=made.pairing_id,
        desktop_session=desktop.session_id,
        expires_at=made.expires_at.isoformat(),
    )


async def _bind(
    deps: Deps, conn: AsyncConnection, seat: Seat, device_type: str, caller: Caller, now: datetime
) -> SessionConflict | None:
    """Bind the session id to the user on first use. The conflict if it is another's: recorded, to be raised
    when the transaction has ended."""
    if seat.user is None:
        return None
    owner, new = await users.bind_session(conn, seat.session_id, seat.user, device_type, now)
    if owner != seat.user:
        attempt = deps.audit.event(
            "session.hijack_attempt", "denied", caller, now, session_id=seat.session_id, owner=owner
        )
        await deps.audit.record(conn, attempt)
        return SessionConflict()
    if new:
        bound = deps.audit.event(
            "session.bound", "success", caller, now, session_id=seat.session_id, device_type=device_type
        )
        await deps.audit.record(conn, bound)
    return None


async def redeem(deps: Deps, typed: str, mobile_session: str, caller: Caller, now: datetime) -> Code:
    """Pair the mobile session with the desktop that shows this code; exactly one of many wins.

    Raises ValidationFailed (not six digits), InvalidCode, RateLimited, SessionConflict.
    """
    code = Codes.parse(typed)
    if code is None:
        raise ValidationFailed(fields={"code": ["Must be the six digits that the desktop shows."]})
    mobile = Seat(mobile_session, caller.subject)
    async with deps.turns.of(f"redeem {caller.subject or caller.address_key}"):
        pairing, refusal, replaced = await _redeem(deps, code, mobile, caller, now)
    if refusal is not None or pairing is None:
        raise refusal or InvalidCode()
    if pairing.redeemed_at == now:
        deps.hub.claimed(pairing.desktop.user, pairing.desktop.session_id, Codes.channel(code))
    for pairing_id in replaced:
        deps.hub.end(pairing_id, "superseded", {"desktop": pairing.desktop.session_id}, keep="desktop")
    return Code(code, pairing.id, pairing.created_at, pairing.expires_at)


async def _redeem(
    deps: Deps, code: str, mobile: Seat, caller: Caller, now: datetime
) -> tuple[Pairing | None, PairingServerError | None, list[UUID]]:
    """The pairing, or why not; and the pairings it has taken the place of."""
    replaced: list[UUID] = []
    async with deps.database.transaction() as conn:
        await require_enabled(conn, caller.subject)
        counting = await attempts.hold(conn, _redeem_limits(deps, caller), now)
        seconds, kind = counting.wait(now)
        if seconds:
            await _redeem_failed(deps, conn, mobile, [], "locked", caller, now)
            text = "Too many wrong codes; wait, then try again."
            return None, RateLimited(seconds, text, limit=kind), replaced
        if (conflict := await _bind(deps, conn, mobile, "mobile", caller, now)) is not None:
            return None, conflict, replaced
        pairing = await store.redeem(conn, deps.codes.macs(code), mobile, now, same_user=deps.rules.same_user)
        if pairing is None:
            lockouts = await counting.charge(now)
            await _redeem_failed(deps, conn, mobile, lockouts, "no_such_code", caller, now)
            return None, InvalidCode(), replaced
        replaced = await store.supersede_channels(conn, pairing, now)
        await deps.audit.record(conn, *_redeemed(deps, pairing, replaced, caller, now))
    return pairing, None, replaced


def _redeem_limits(deps: Deps, caller: Caller) -> list[Counted]:
    """With `same_user` a stranger's guesses are worthless, so only the user's own failures lock him out;
    the address's are counted all the same, for whoever comes without an account."""
    by_user = caller.subject is not None and deps.rules.same_user
    limits = [Counted("redeem_address", caller.address_key, REDEEM_ADDRESS, binding=not by_user)]
    if caller.subject is not None:
        limits.append(Counted("redeem_user", caller.subject, REDEEM_USER))
    return limits


async def _redeem_failed(
    deps: Deps,
    conn: AsyncConnection,
    mobile: Seat,
    lockouts: Sequence[Lockout],
    reason: str,
    caller: Caller,
    now: datetime,
) -> None:
    failed = deps.audit.event(
        "pairing.redeem", "failure", caller, now, reason=reason, mobile_session=mobile.session_id
    )
    locked = [
        deps.audit.event(
            "auth.lockout", "denied", caller, now, scope=lockout.limit.kind, until=lockout.until.isoformat()
        )
        for lockout in lockouts
    ]
    await deps.audit.record(conn, failed, *locked)


def _redeemed(
    deps: Deps, pairing: Pairing, replaced: Sequence[UUID], caller: Caller, now: datetime
) -> list[Event]:
    first = pairing.redeemed_at == now
    mobile = pairing.mobile.session_id if pairing.mobile else None
    events = [
        deps.audit.event(
            "pairing.redeem",
            "success",
            caller,
            now,
            reason=None if first else "retry_same",
            pairing_id=pairing.id,
            mobile_session=mobile,
            ms_since_created=round((now - pairing.created_at).total_seconds() * 1000),
        )
    ]
    return events + [
        deps.audit.event("pairing.closed", "success", caller, now, reason="superseded", pairing_id=ended)
        for ended in replaced
    ]


async def list_own(deps: Deps, caller: Caller) -> list[Pairing]:
    """The caller's live pairings, newest first."""
    async with deps.database.transaction() as conn:
        await require_enabled(conn, caller.subject)
        return await store.live_of(conn, caller.subject or "")


async def unpair(deps: Deps, pairing_id: UUID, caller: Caller, now: datetime) -> Pairing:
    """End one of the caller's live pairings for good. Raises NotFound."""
    async with deps.database.transaction() as conn:
        await require_enabled(conn, caller.subject)
        ended = await store.end_own(conn, pairing_id, caller.subject or "", now)
        if ended is not None:
            await deps.audit.record(conn, closed_event(deps, ended, "user", caller, now))
    if ended is None:
        raise NotFound("You have no live pairing with this id.")
    deps.hub.end(ended.id, "Unpaired", both_gone(ended))
    return ended


async def unpair_from_channel(deps: Deps, pairing_id: UUID, role: str, caller: Caller, now: datetime) -> None:
    """A member ends its pairing for good: the other is told that it must not come back."""
    async with deps.database.transaction() as conn:
        ended = await store.end(conn, pairing_id, "user", now)
        if ended is not None:
            await deps.audit.record(conn, closed_event(deps, ended, "user", caller, now))
    seat = ended.seat(role) if ended else None
    deps.hub.end(pairing_id, "Unpaired", {role: seat.session_id} if seat else {})


def both_gone(pairing: Pairing) -> dict[str, str]:
    gone = {"desktop": pairing.desktop.session_id}
    if pairing.mobile is not None:
        gone["mobile"] = pairing.mobile.session_id
    return gone


def closed_event(deps: Deps, pairing: Pairing, reason: str, caller: Caller, now: datetime) -> Event:
    since = pairing.activated_at or pairing.created_at
    return deps.audit.event(
        "pairing.closed",
        "success",
        caller,
        now,
        reason=reason,
        pairing_id=pairing.id,
        duration_s=round((now - since).total_seconds()),
    )


async def identify(deps: Deps, session_id: str, device_type: str, caller: Caller, now: datetime) -> None:
    """Bind the session id to the caller. Raises SessionConflict, InvalidToken (account disabled)."""
    async with deps.database.transaction() as conn:
        await require_enabled(conn, caller.subject)
        refusal = await _bind(deps, conn, Seat(session_id, caller.subject), device_type, caller, now)
    if refusal is not None:
        raise refusal


async def admit(
    deps: Deps, channel: str, role: str, session_id: str, caller: Caller, now: datetime
) -> Pairing:
    """Let the device into the channel of its own pairing, and nobody else.

    Raises InvalidChannel, ChannelFull (both seats taken by others), SessionConflict.
    """
    macs = deps.codes.macs(Codes.of_channel(channel))
    seat = Seat(session_id, caller.subject)
    async with deps.database.transaction() as conn:
        await require_enabled(conn, caller.subject)
        refusal: PairingServerError | None = await _bind(deps, conn, seat, role, caller, now)
        pairing = None
        if refusal is None:
            pairing = await store.by_code(conn, macs)
            refusal = _refusal(deps, pairing, channel, role, seat)
        if refusal is None and pairing is not None:
            other = "mobile" if role == "desktop" else "desktop"
            present = deps.hub.present(pairing.id, other)
            entered = await store.enter(conn, pairing.id, role, seat, now, both_present=present)
            if entered is None:
                refusal = _ended(channel, pairing)
            pairing = entered or pairing
        if refusal is not None and not isinstance(refusal, SessionConflict):
            await deps.audit.record(conn, _denied(deps, refusal, pairing, caller, now))
    if isinstance(refusal, ChannelFull) and pairing is not None and pairing.id in deps.hub.channels:
        deps.hub.channels[pairing.id].refuse_intruder(role, deps.hub.now())
    if refusal is not None or pairing is None:
        raise refusal or InvalidChannel(channel=channel)
    return pairing


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
    other = pairing.seat("mobile" if role == "desktop" else "desktop")
    return not (deps.rules.same_user and other and other.user not in (None, seat.user))


def _ended(channel: str, pairing: Pairing) -> InvalidChannel:
    return InvalidChannel(channel=channel, reason=pairing.end_reason or "expired")


def _denied(
    deps: Deps, refusal: PairingServerError, pairing: Pairing | None, caller: Caller, now: datetime
) -> Event:
    reason = "full" if isinstance(refusal, ChannelFull) else "unknown" if pairing is None else "not_yours"
    if "reason" in refusal.details:
        reason = "ended"
    pairing_id = pairing.id if pairing else None
    return deps.audit.event("channel.denied", "denied", caller, now, reason=reason, pairing_id=pairing_id)

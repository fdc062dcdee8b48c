"""How pairings end by themselves, and how their names come free. Called by the timer.

Each function is idempotent and safe when several servers share the database: it changes only rows
that are still due, and leaves those that another server is just changing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from pairing_server.errors import Unavailable
from pairing_server.relay.close_codes import CloseCode
from pairing_server.request_context import RequestContext
from pairing_server.services.deps import Deps
from pairing_server.services.membership import both_gone, closed_event
from pairing_server.store import expiry as store
from pairing_server.store import logins, membership, pairings, rate_limits, users

# Seconds between two notes of who is connected; whoever has not been noted for much longer is gone.
TOUCH = 30
PAIRINGS_KEPT = timedelta(days=30)
SESSIONS_KEPT = timedelta(days=365)
# The longest lock is a day, and its step is remembered for another.
ATTEMPTS_KEPT = timedelta(days=2, hours=1)


async def recount_codes(deps: Deps) -> None:
    """Count the live codes anew (see LiveCodes)."""
    async with deps.database.transaction() as conn:
        deps.live.count = await store.count_live(conn)


async def note_presence(deps: Deps, active: Sequence[UUID], waiting: Sequence[UUID], now: datetime) -> None:
    """Note which channels have both members connected here, and which only one or none."""
    met = {**dict.fromkeys(waiting, False), **dict.fromkeys(active, True)}
    await membership.set_present(deps.database.once, met, now)


async def expire_codes(deps: Deps, context: RequestContext) -> int:
    """End pending codes whose time is over, and pairings that nobody met in. How many."""
    unmet = context.now - timedelta(seconds=deps.rules.code_ttl)
    async with deps.database.transaction() as conn:
        expired = await store.expire_pending(conn, context.now)
        never = await store.close_never_active(conn, unmet, context.now)
        events = [
            deps.audit.event(
                "pairing.code_expired",
                "success",
                context,
                pairing_id=pairing.id,
                age_s=round((context.now - pairing.created_at).total_seconds()),
            )
            for pairing in expired
        ] + [closed_event(deps, pairing, "expired", context) for pairing in never]
        if events:
            await deps.audit.record(conn, *events)
    for pairing in expired:
        deps.hub.lapse(pairing.id, "expired")
    for pairing in never:
        deps.hub.lapse(pairing.id, "expired")
    return len(expired) + len(never)


async def close_deserted(deps: Deps, context: RequestContext) -> int:
    """End pairings that no server has seen a member of for the grace. How many."""
    # Whoever has a channel's members notes it every TOUCH seconds, so a little more than the grace.
    unseen = context.now - timedelta(seconds=deps.rules.reconnect_grace + 2 * TOUCH)
    async with deps.database.transaction() as conn:
        deserted = await store.close_deserted(conn, unseen, context.now)
        if deserted:
            events = [closed_event(deps, pairing, "deserted", context) for pairing in deserted]
            await deps.audit.record(conn, *events)
    for pairing in deserted:
        deps.hub.end(pairing.id, "deserted", both_gone(pairing))
    return len(deserted)


async def close_overdue(deps: Deps, monotonic: float, context: RequestContext) -> int:
    """End this process's channels that a member has been missing from for longer than the grace. How many."""
    closed = 0
    for channel in deps.hub.overdue(monotonic):
        if not channel.overdue(monotonic, deps.rules.reconnect_grace):
            continue  # it came back while another was being ended
        if channel.ever_active:
            # The grace is not extended while the database is away: the row ends when it is back, as deserted.
            ended = None
            with suppress(Unavailable):
                async with deps.database.transaction() as conn:
                    ended = await pairings.end(conn, channel.pairing_id, "deserted", context.now)
                    if ended is not None:
                        await deps.audit.record(conn, closed_event(deps, ended, "deserted", context))
            seen = {role: holder.session_id for role, holder in channel.holders.items()}
            gone = both_gone(ended) if ended else seen
            # Only those who are missing are gone for good.
            missing = {role: gone[role] for role in channel.absent_since if role in gone}
            deps.hub.end(channel.pairing_id, "deserted", missing)
        else:
            # Nobody has met there yet, so nothing is lost: the next join makes it anew.
            deps.hub.forget(channel.pairing_id)
        closed += 1
    return closed


async def release_names(deps: Deps, now: datetime) -> int:
    """Let names that ended long enough ago be drawn again, and forget very old pairings. How many."""
    async with deps.database.transaction() as conn:
        released = await store.release_names(conn, now - timedelta(seconds=deps.rules.name_kept))
        await store.prune(conn, now - PAIRINGS_KEPT)
    return released


async def close_disabled(deps: Deps, now: datetime) -> int:
    """Close the connections of accounts that were disabled meanwhile, on whichever server. How many."""
    subjects = {connection.subject for connection in deps.hub.connections.values()}
    ids = [UUID(subject) for subject in subjects if "|" not in subject]
    if not ids:
        return 0
    async with deps.database.transaction() as conn:
        disabled = {str(user) for user in await users.disabled_among(conn, ids)}
    for subject in map(str, ids):
        if subject in disabled:
            deps.enabled.forget(subject)
        else:
            deps.enabled.note(subject, now)
    closing = [connection for connection in deps.hub.connections.values() if connection.subject in disabled]
    for connection in closing:
        connection.close(CloseCode.INVALID_TOKEN, "account disabled")
    return len(closing)


async def prune(deps: Deps, now: datetime) -> int:
    """Forget what was counted long ago, and session ids that nobody has used for a year, and logins
    that are over. How many."""
    async with deps.database.transaction() as conn:
        counted = await rate_limits.prune(conn, now - ATTEMPTS_KEPT)
        over = await logins.prune(conn, now)
        return counted + over + await users.forget_sessions(conn, now - SESSIONS_KEPT)

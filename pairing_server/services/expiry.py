"""How pairings end by themselves, and how their names come free. Called by the scheduler.

Each method is idempotent and safe when several servers share the database: it changes only rows
that are still due, and leaves those that another server is just changing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import Unavailable
from pairing_server.relay.channel import Channel
from pairing_server.relay.hub import Hub
from pairing_server.request_context import RequestContext
from pairing_server.services.membership import closed_event
from pairing_server.services.pairing_changes import PairingChanges, announce_end
from pairing_server.services.presence import TOUCH
from pairing_server.services.rules import PairingRules
from pairing_server.store import expiry as store
from pairing_server.store import logins, pairing_changes, pairings, rate_limits, users
from pairing_server.store.pairings import Pairing

PAIRINGS_KEPT = timedelta(days=30)
SESSIONS_KEPT = timedelta(days=365)
# The longest lock is a day, and its step is remembered for another.
LIMITS_KEPT = timedelta(days=2, hours=1)


@dataclass(frozen=True, slots=True)
class Expiry:
    database: Database
    audit: AuditLog
    hub: Hub
    changes: PairingChanges
    rules: PairingRules

    async def expire_pairings(self, context: RequestContext) -> int:
        """End pending codes whose time is over, and pairings whose members never met. How many."""
        unmet = context.now - timedelta(seconds=self.rules.code_ttl)
        async with self.database.transaction() as conn:
            expired = await store.expire_pending(conn, context.now)
            never = await store.close_never_active(conn, unmet, context.now)
            events = [
                self.audit.event(
                    "pairing.code_expired",
                    "success",
                    context,
                    pairing_id=pairing.id,
                    age_s=round((context.now - pairing.created_at).total_seconds()),
                )
                for pairing in expired
            ] + [closed_event(self.audit, pairing, "expired", context) for pairing in never]
            if events:
                await self.audit.record(conn, *events)
        for pairing in [*expired, *never]:
            announce_end(self.hub, pairing)
        return len(expired) + len(never)

    async def close_deserted(self, context: RequestContext) -> int:
        """End pairings that no server has seen a member of for the grace. How many."""
        # A server notes its channels' members every TOUCH seconds, so a little more than the grace.
        unseen = context.now - timedelta(seconds=self.rules.reconnect_grace + 2 * TOUCH)
        async with self.database.transaction() as conn:
            deserted = await store.close_deserted(conn, self.changes.node, unseen, context.now)
            if deserted:
                events = [closed_event(self.audit, pairing, "deserted", context) for pairing in deserted]
                await self.audit.record(conn, *events)
        for pairing in deserted:
            announce_end(self.hub, pairing)
        return len(deserted)

    async def close_overdue(self, monotonic: float, context: RequestContext) -> int:
        """End this process's channels that a member has been missing from for longer than the grace. How many."""
        closed = 0
        for channel in self.hub.overdue_channels(monotonic):
            if not channel.is_overdue(monotonic, self.rules.reconnect_grace):
                continue  # the member came back while another channel was being ended
            if channel.ever_active:
                await self._close_overdue(channel, context)
            else:
                # The members have not met yet, so nothing is lost: the next join makes the channel anew.
                self.hub.forget_channel(channel.pairing_id)
            closed += 1
        return closed

    async def _close_overdue(self, channel: Channel, context: RequestContext) -> None:
        pairing_id = channel.pairing_id
        try:
            ended = await self._end_overdue(channel, context)
            if ended is None:
                await self.changes.compare([pairing_id])
        except Unavailable:
            # The grace is not extended while the database is away: the row ends later, as deserted.
            seen = {role: owner.session_id for role, owner in channel.seat_owners.items()}
            missing = {role: seen[role] for role in channel.absent_since if role in seen}
            self.hub.end_channel(pairing_id, "deserted", missing)
            return
        if ended is not None:
            announce_end(self.hub, ended)
        elif not channel.members:
            # Its row decides from now on.
            self.hub.forget_channel(pairing_id)

    async def _end_overdue(self, channel: Channel, context: RequestContext) -> Pairing | None:
        """What was ended; None if it had ended, or another server has it or has seen it later."""

        # With a member here no other server has the channel. Without, the devices may be connected to one of the release
        # before, which notes only when it has seen them.
        until = None if channel.members else channel.seen_at
        while True:
            async with self.database.transaction() as conn:
                ended = await pairings.end_overdue(
                    conn, channel.pairing_id, self.changes.node, until, context.now
                )
                if ended is not None:
                    await self.audit.record(conn, closed_event(self.audit, ended, "deserted", context))
            if ended is not None or channel.members or until == channel.seen_at:
                return ended
            until = channel.seen_at  # this server itself has noted something meanwhile

    async def release_names(self, now: datetime) -> int:
        """Let names that ended long enough ago be drawn again, and forget very old pairings. How many."""
        async with self.database.transaction() as conn:
            released = await store.release_names(conn, now - timedelta(seconds=self.rules.name_kept))
            await store.prune(conn, now - PAIRINGS_KEPT)
            await pairing_changes.prune(conn)
        return released

    async def prune(self, now: datetime) -> int:
        """Forget old counts of limits, session ids that were not used for a year, and logins that are over. How many."""
        async with self.database.transaction() as conn:
            counted = await rate_limits.prune(conn, now - LIMITS_KEPT)
            over = await logins.prune(conn, now)
            return counted + over + await users.forget_sessions(conn, now - SESSIONS_KEPT)

"""Keeping the channels' settings documents, so that they survive a restart of the server.

They are written behind, by the scheduler and when the server stops: a message never waits for the database. So a
crash may lose the changes of its last seconds; the device that made them still has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.database import Database
from pairing_server.relay.hub import Hub
from pairing_server.relay.settings.document import SettingsSnapshot
from pairing_server.store import settings_documents as store

# Documents a statement; each has at most 16 KiB.
_BATCH = 200
# A pairing that ended longer ago than this has been looked at many times.
_FORGET_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SettingsKeeper:
    database: Database
    hub: Hub

    async def keep(self) -> int:
        """Write the documents that have changed. How many.

        Raises Unavailable if the database is away; what is not written then is written the next time.
        """
        changed = self.hub.unsaved_channels()
        for start in range(0, len(changed), _BATCH):
            batch = [(channel, channel.settings.snapshot()) for channel in changed[start : start + _BATCH]]
            rows = [store.Kept(c.pairing_id, c.epoch, now.rev, now.document) for c, now in batch]
            await store.keep(self.database.once, rows)
            for channel, now in batch:
                channel.saved_rev = now.rev
        return len(changed)

    async def of_pairing(self, conn: AsyncConnection, pairing_id: UUID) -> SettingsSnapshot | None:
        """The document that the pairing's channel starts with; None if there is none, or the channel is live here."""
        if pairing_id in self.hub.channels:
            return None
        kept = await store.of_pairing(conn, pairing_id)
        return None if kept is None else SettingsSnapshot(kept.rev, kept.document)

    async def forget_ended(self, now: datetime) -> int:
        """Delete the documents of pairings that have ended. How many."""
        async with self.database.transaction() as conn:
            return await store.forget_ended(conn, now - _FORGET_WITHIN)

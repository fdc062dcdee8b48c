"""Partitions of the audit log: made ahead; old ones are exported, where that is set, and dropped: whole and sealed."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path

from pairing_server.audit.export import private
from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals.sealed_lines import SealedLines
from pairing_server.audit.store import catalogue, partitions
from pairing_server.audit.store import seals as store
from pairing_server.audit.store.catalogue import Partition, isolated
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext

log = logging.getLogger(__name__)


class Retention:
    """`days`: how long rows are kept at least. `folder`: where they are exported to before they go; None: nowhere."""

    def __init__(
        self, database: Database, lines: SealedLines, audit: AuditLog, days: int, folder: Path | None
    ) -> None:
        self._database = database
        self._lines = lines
        self._audit = audit
        self._days = days
        self._folder = folder

    async def make_partitions(self) -> int:
        """Make the partitions of the months to come. How many."""
        async with self._database.transaction() as conn:
            return await partitions.make(conn)

    async def drop_old(self, context: RequestContext) -> int:
        """Drop the partitions that ended longer ago than `days`. How many.

        The database refuses to drop one that is younger, not the oldest, or not wholly sealed.
        """
        dropped = 0
        while (oldest := await self._due(context.now)) is not None:
            if self._folder is not None:
                await self._export(oldest, self._folder, context.now)
            async with self._database.transaction() as conn:
                rows = await partitions.drop(
                    conn, oldest.name, self._days, self._audit.node, self._audit.app_version
                )
            log.warning(
                "audit partition dropped",
                extra={"partition": oldest.name, "until": str(oldest.ends.date()), "rows": rows},
            )
            dropped += 1
        return dropped

    async def _due(self, now: datetime) -> Partition | None:
        async with self._database.transaction() as conn, isolated(conn) as tables:
            oldest = (await catalogue.partitions(tables))[0]
        return oldest if oldest.ends <= now - timedelta(days=self._days) else None

    async def _export(self, partition: Partition, folder: Path, now: datetime) -> None:
        """Write what is in the partition to a file of its own: whole, or not at all. Raises OSError."""
        async with self._database.transaction() as conn, isolated(conn) as tables:
            known = await store.months(tables)
        begins = partition.begins.strftime("%Y%m") if partition.begins else ""
        months = [month for month in known if begins <= month < partition.ends.strftime("%Y%m")]
        if not months:
            return
        # Not the partition's name: that is its owner's choice, and might be a path, or the file of another month.
        name = f"audit_events_{begins or 'first'}"
        fresh = folder / f".{name}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        await asyncio.to_thread(_append, fresh, [])
        async for lines in self._lines.batches(now, months=months):
            await asyncio.to_thread(_append, fresh, lines)
        await asyncio.to_thread(_sync, fresh)
        target = await asyncio.to_thread(_file_for, folder, name, fresh)
        fresh.replace(target)
        log.info("audit partition exported", extra={"partition": partition.name, "file": str(target)})


def _append(path: Path, lines: list[str]) -> None:
    with open(path, "a", encoding="utf-8", opener=private) as file:
        file.writelines(f"{line}\n" for line in lines)


def _file_for(folder: Path, name: str, fresh: Path) -> Path:
    """The export's file. One that is there is replaced by the same events only, as after a drop that has failed."""
    target, number = folder / f"{name}.jsonl", 1
    while target.exists() and not _alike(fresh, target):
        number += 1
        target = folder / f"{name}-{number}.jsonl"
    return target


def _alike(one: Path, other: Path) -> bool:
    """Whether they differ at most in the first line, which has the time."""
    with one.open("rb") as left, other.open("rb") as right:
        left.readline()
        right.readline()
        return all(a == b for a, b in zip_longest(left, right))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

"""Old months of the audit log are exported, where that is set, and dropped: whole, sealed, and not without a word."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pairing_server.audit.seals import sealed_lines
from pairing_server.audit.store import partitions
from pairing_server.audit.store import seals as store
from pairing_server.audit.store.partitions import Partition
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext
from pairing_server.services.deps import Deps

log = logging.getLogger(__name__)

_LINES = 1000


@dataclass(frozen=True, slots=True)
class Retention:
    """`days`: how long rows are kept at least. `folder`: where they are exported to before they go; None: nowhere."""

    days: int
    folder: Path | None


async def drop_old(deps: Deps, rule: Retention, context: RequestContext) -> int:
    """Drop the partitions that ended longer ago than the rule says. How many.

    The database refuses one that is younger, not the oldest, or not wholly sealed, whoever asks.
    """
    dropped = 0
    while (oldest := await _due(deps.database, rule, context.now)) is not None:
        if rule.folder is not None:
            await _export(deps, oldest, rule.folder, context.now)
        async with deps.database.transaction() as conn:
            rows = await partitions.drop(
                conn, oldest.name, rule.days, deps.sealer.node, deps.audit.app_version
            )
        log.warning(
            "the audit log's %s, until %s, was dropped: %d rows", oldest.name, oldest.ends.date(), rows
        )
        dropped += 1
    return dropped


async def _due(database: Database, rule: Retention, now: datetime) -> Partition | None:
    async with database.transaction() as conn:
        oldest = (await partitions.every(conn))[0]
    return oldest if oldest.ends <= now - timedelta(days=rule.days) else None


async def _export(deps: Deps, partition: Partition, folder: Path, now: datetime) -> None:
    """Write what is in the partition to a file of its own: whole, or not at all. Raises OSError."""
    async with deps.reading.transaction() as conn:
        known = await store.months(conn)
    begins = partition.begins.strftime("%Y%m") if partition.begins else ""
    months = [month for month in known if begins <= month < partition.ends.strftime("%Y%m")]
    if not months:
        return
    target = folder / f"{partition.name}.jsonl"
    fresh = folder / f".{partition.name}.{os.getpid()}"
    await asyncio.to_thread(fresh.write_bytes, b"")
    async for lines in _in_thousands(sealed_lines.lines(deps, now, months=months)):
        await asyncio.to_thread(_append, fresh, lines)
    await asyncio.to_thread(_sync, fresh)
    fresh.replace(target)
    log.info("the audit log's %s was exported to %s", partition.name, target)


async def _in_thousands(lines: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    waiting: list[str] = []
    async for line in lines:
        waiting.append(line)
        if len(waiting) >= _LINES:
            yield waiting
            waiting = []
    yield waiting


def _append(path: Path, lines: list[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

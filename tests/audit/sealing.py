"""An audit log with seals, and statements that tamper with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg

from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals import Report, SealKey
from pairing_server.audit.seals.memory import SealMemory
from pairing_server.audit.seals.sealer import Copy, Sealer
from pairing_server.audit.seals.verification import Verifier
from pairing_server.audit.store import search
from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext, system
from pairing_server.server.backend import Backend
from pairing_server.store import audit_events

KEY = SealKey.generate()[0]


@dataclass(frozen=True)
class SealedLog:
    """A node's audit log with a sealer of the test's own."""

    database: Database
    reading: Database
    audit: AuditLog
    sealer: Sealer
    verifier: Verifier


def sealing(
    of: Backend | SealedLog, folder: Path | None = None, *, key: SealKey = KEY, copy: Copy | None = None
) -> SealedLog:
    """With another sealer, which remembers in `folder`."""
    sealer = Sealer(of.database, of.audit, key, SealMemory(folder), copy)
    return SealedLog(of.database, of.reading, of.audit, sealer, Verifier(of.reading, of.audit, sealer))


async def record(sealed_log: SealedLog, *actors: str) -> None:
    """One event for each actor, in one transaction."""
    caller = RequestContext(utcnow(), kind="user")
    async with sealed_log.database.transaction() as conn:
        await audit_events.add(
            conn,
            [
                sealed_log.audit.event(
                    "auth.login", "success", replace(caller, subject=actor).at(utcnow()), target=place
                )
                for place, actor in enumerate(actors)
            ],
        )


async def seal(sealed_log: SealedLog) -> list[int]:
    return [made.number for made in await sealed_log.sealer.seal(system(utcnow()))]


async def verify(sealed_log: SealedLog, copies: dict[int, str] | None = None) -> Report:
    return await sealed_log.verifier.verify(system(utcnow()), copies or {})


async def events(sealed_log: SealedLog, name: str) -> list[dict[str, Any]]:
    async with sealed_log.database.transaction() as conn:
        found = (await search.page(conn, search.Filter(event=name), 1000)).events
    return [{"outcome": row.event.outcome, **row.event.attrs} for row in reversed(found)]


async def sealed(sealed_log: SealedLog, count: int = 3) -> None:
    """So many seals, each over the logins of alice-N, bob-N and carol-N."""
    for number in range(1, count + 1):
        await record(sealed_log, *(f"{name}-{number}" for name in ("alice", "bob", "carol")))
        assert await seal(sealed_log) == [number]
    assert (await verify(sealed_log)).fault is None


async def sealed_again(sealed_log: SealedLog) -> None:
    await record(sealed_log, "alice")
    await seal(sealed_log)


@asynccontextmanager
async def triggers_off(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        yield connection
    finally:
        await connection.close()

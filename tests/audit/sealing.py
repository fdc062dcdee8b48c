"""An audit log with seals, and whoever tampers with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg

from pairing_server.audit.seals import Report, SealKey
from pairing_server.audit.seals.memory import SealMemory
from pairing_server.audit.seals.sealer import Copy, Sealer
from pairing_server.audit.seals.verification import Verifier
from pairing_server.audit.store import search
from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext, system
from pairing_server.services.deps import Deps
from pairing_server.store import audit_events

KEY = SealKey.generate()[0]


def sealing(deps: Deps, folder: Path | None = None, *, key: SealKey = KEY, copy: Copy | None = None) -> Deps:
    """With another sealer, which remembers in `folder`."""
    sealer = Sealer(deps.database, deps.audit, key, SealMemory(folder), copy)
    return replace(deps, sealer=sealer, verifier=Verifier(deps.reading, deps.audit, sealer))


async def record(deps: Deps, *actors: str) -> None:
    """One event for each actor, in one transaction."""
    caller = RequestContext(utcnow(), kind="user")
    async with deps.database.transaction() as conn:
        await audit_events.add(
            conn,
            [
                deps.audit.event(
                    "auth.login", "success", replace(caller, subject=actor).at(utcnow()), target=place
                )
                for place, actor in enumerate(actors)
            ],
        )


async def seal(deps: Deps) -> list[int]:
    return [made.number for made in await deps.sealer.seal(system(utcnow()))]


async def verify(deps: Deps, copies: dict[int, str] | None = None) -> Report:
    return await deps.verifier.verify(system(utcnow()), copies or {})


async def events(deps: Deps, name: str) -> list[dict[str, Any]]:
    async with deps.database.transaction() as conn:
        found = (await search.page(conn, search.Filter(event=name), 1000)).events
    return [{"outcome": row.event.outcome, **row.event.attrs} for row in reversed(found)]


async def sealed(deps: Deps, count: int = 3) -> None:
    """So many seals, each over the logins of alice-N, bob-N and carol-N."""
    for number in range(1, count + 1):
        await record(deps, *(f"{name}-{number}" for name in ("alice", "bob", "carol")))
        assert await seal(deps) == [number]
    assert (await verify(deps)).fault is None


async def sealed_again(deps: Deps) -> None:
    await record(deps, "alice")
    await seal(deps)


@asynccontextmanager
async def triggers_off(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        yield connection
    finally:
        await connection.close()

"""Connects and pairings by the thousand, then idle: the server must hold as much as before."""

from __future__ import annotations

import asyncio

from endure.run import Run
from endure.server import Server
from harness.load_client import HttpConnection, both, close_all, connect_all, pair_new_devices
from harness.machine import resident_bytes
from harness.pairing_database import PairingDatabase

AT_ONCE = 50
IDLE_SECONDS = 60
WARM_UP_SECONDS = 20


async def check(run: Run, database: PairingDatabase, connects: int, pairings: int) -> bool:
    """Whether the counts of sockets, tasks, timers and handlers are exactly those of before."""
    # A channel ends five seconds after its last member has left, and is then forgotten.
    server = await asyncio.to_thread(Server, run, database, RECONNECT_GRACE="5")
    users = await asyncio.to_thread(database.add_users, 100)

    async def come_and_go(connects: int, pairings: int) -> None:
        for _ in range(connects // AT_ONCE):
            pairs = await asyncio.to_thread(database.add_pairs, server.port, AT_ONCE // 2, 200)
            close_all(await connect_all(both(pairs), at_once=AT_ONCE))
        http = await HttpConnection.open(server.port)
        for number in range(pairings):
            if not await pair_new_devices(http, users[number % len(users)].access):
                raise RuntimeError("a pairing failed")
        http.close()

    async def counts(title: str, seconds: int, expected: dict[str, int] | None = None) -> dict[str, int]:
        """The counts after so many idle seconds, or as soon as they are the expected ones."""
        found: dict[str, int] = {}
        for _ in range(seconds):
            await asyncio.sleep(1)
            found = (await asyncio.to_thread(server.snapshot)).counts
            # Caches may hold other objects than before.
            objects = found.pop("objects")
            if found == expected:
                break
        run.say(f"{title}: {objects} objects, {found}, {resident_bytes(server.pid) >> 10} KiB")
        return found

    await come_and_go(200, 50)
    before = await counts("warm", WARM_UP_SECONDS)
    await come_and_go(connects, pairings)
    run.say(f"{connects} connects and {pairings} pairings are done")
    return await counts("idle", IDLE_SECONDS, before) == before

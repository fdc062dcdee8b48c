"""Connects and pairings by the thousand, then idle: is everything back where it was?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from bench.connections import Http, close_all, take_all
from bench.machine import resident_bytes
from bench.ours import Site
from bench.patient import Watched
from bench.requests import pairings

AT_ONCE = 50
IDLE = 60.0
WARM = 20


async def run(
    site: Site, folder: Path, core: int, connects: int, pairs: int, say: Callable[[str], None]
) -> bool:
    """Whether sockets, tasks, timers and handlers are back at the baseline exactly."""
    # Channels end five seconds after the last has gone, and are then forgotten.
    server = await asyncio.to_thread(Watched, site, folder, core, RECONNECT_GRACE="5")
    act = pairings([user.access for user in await asyncio.to_thread(site.users, 100)])

    async def come_and_go(count: int, made: int) -> None:
        for _ in range(count // AT_ONCE):
            pairs = await asyncio.to_thread(site.pairs_at, server.port, AT_ONCE // 2, 200)
            close_all(await take_all([seat for pair in pairs for seat in pair], at_once=AT_ONCE))
        http = await Http.open(server.port)
        for _ in range(made):
            if not await act(http):
                raise RuntimeError("a pairing failed")
        http.close()

    async def settled(like: dict[str, int] | None) -> dict[str, int]:
        """What it holds when it is idle, or as soon as that is what it held before."""
        found: dict[str, int] = {}
        for _ in range(int(IDLE) if like else WARM):
            await asyncio.sleep(1)
            found = await asyncio.to_thread(server.holds)
            if like is not None and _exact(found) == _exact(like):
                break
        return found

    await come_and_go(200, 50)
    before = await settled(None)
    say(f"warm: {before}, {resident_bytes(server.pid) >> 10} KiB")
    await come_and_go(connects, pairs)
    say(f"{connects} connects and {pairs} pairings are done")
    after = await settled(before)
    say(f"idle: {after}, {resident_bytes(server.pid) >> 10} KiB")
    return _exact(after) == _exact(before)


def _exact(found: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in found.items() if name != "objects"}

"""After connects and pairings by the hundred everything is back to where it was, exactly.

`scripts/endure leaks` does the same with a server of its own, by the thousand.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from pathlib import Path
from typing import Any

from tornado.web import RequestHandler

from pairing_server.clock import utcnow
from pairing_server.relay.channel import Channel
from pairing_server.relay.connection import Connection
from pairing_server.relay.send_queue import SendQueue
from pairing_server.request_context import system
from tests.devices import Account, Site

OURS = (Channel, SendQueue, Connection, RequestHandler)


def files() -> int:
    """How many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def held(site: Site) -> dict[str, Any]:
    """What there is of sockets, tasks, timers and objects, once nothing is under way."""
    site.client.close()
    node = site.node
    await node.app.settled()
    loop = asyncio.get_running_loop()
    while True:
        # What has been closed is let go of in the loop's next rounds.
        for _ in range(20):
            await asyncio.sleep(0)
        gc.collect()
        tasks = len(asyncio.all_tasks())
        # A connection that the pool keeps has a timer for each statement that it remembers, a hundred at most.
        timers = [
            timer
            for timer in loop._scheduled  # type: ignore[attr-defined]
            if not timer.cancelled() and "_StatementCache" not in repr(timer)
        ]
        objects = Counter(
            kind.__name__ for thing in gc.get_objects() for kind in OURS if isinstance(thing, kind)
        )
        yet = node.http._connections  # type: ignore[attr-defined]
        if not yet and not node.hub.connections:
            break
    return {
        "files": files(),
        "tasks": tasks,
        "timers": len(timers),
        "objects": dict(objects),
        "channels": len(node.hub.channels),
        "places": len(node.hub._last_channel),
        "devices": len(node.hub._by_device),
        "users": len(node.hub._of_user),
        "addresses": len(node.hub._of_address),
        "turns": len(node.backend.locks._locks),
    }


async def come_and_go(site: Site, account: Account, connects: int, pairs: int) -> None:
    """Devices that connect and go, in several manners; pairs that meet, talk and part."""
    for number in range(connects):
        socket = await site.connect(account, "desktop" if number % 2 else "mobile")
        match number % 4:
            case 0:
                socket.close()
            case 1:
                socket.send(
                    {"type": "identify", "device_type": "desktop", "session_id": f"desktop-{number:08d}"}
                )
                await socket.expect("identified")
                socket.close()
            case 2:
                stream = socket.connection.protocol.stream  # type: ignore[union-attr]
                stream.close()
                socket.close()
            case 3:
                socket.send("not JSON")
                await socket.error()
                socket.close()
        await socket.closed()
    for _ in range(pairs):
        desktop, mobile = await site.pair(account)
        desktop.socket.send({"type": "settings_sync", "settings": {"gain": 1}})
        await mobile.socket.expect("settings_sync")
        for device in (desktop, mobile):
            device.socket.close()
            await device.socket.closed()
    site.sockets.clear()
    while site.node.hub.connections:
        await site.get("/healthz")
    late = asyncio.get_running_loop().time() + 301
    await site.node.backend.expiry.close_overdue(late, system(utcnow()))


async def test_connects_and_pairings_leave_nothing_behind(site: Site) -> None:
    account = await site.account()
    await come_and_go(site, account, 8, 2)
    before = await held(site)
    site.client = type(site.client)(force_instance=True, max_clients=500)
    await come_and_go(site, account, 120, 30)
    after = await held(site)
    site.client = type(site.client)(force_instance=True, max_clients=500)
    # Timers that an earlier test has left in the worker's loop may have fired meanwhile.
    assert after.pop("timers") <= before.pop("timers")
    assert after == before
    assert before["objects"].keys() <= {"RequestHandler"}

"""A steady load for an hour: how much memory and how many objects the server holds, twice a minute."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from endure.run import Run
from endure.server import Server, Snapshot
from harness.load_client import Connection, both, close_all, connect_all
from harness.machine import cpu_seconds, resident_bytes
from harness.pairing_database import PairingDatabase
from pairing_server.client import ClientError, PairingClient

INTERVAL_SECONDS = 30.0
# The first part of the time fills the caches.
WARM_UP = 0.25


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the best line through the points."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    below = sum((x - mean_x) ** 2 for x, _ in points)
    return above / below if below else 0.0


def largest_changes(before: Mapping[str, int], after: Mapping[str, int], count: int = 12) -> str:
    """The types whose number of objects has changed most."""
    change = {kind: after.get(kind, 0) - before.get(kind, 0) for kind in {**before, **after}}
    most = sorted((kind for kind in change if change[kind]), key=lambda kind: -abs(change[kind]))[:count]
    return ", ".join(f"{kind} {change[kind]:+d}" for kind in most) or "none"


@dataclass(frozen=True, slots=True)
class Sample:
    """`at`: seconds since the start."""

    at: float
    resident_mib: float
    snapshot: Snapshot

    @property
    def objects(self) -> int:
        return self.snapshot.counts["objects"]


async def check(run: Run, database: PairingDatabase, minutes: float, pairs: int, busy: float) -> bool:
    """Pairs send messages, devices come and go, others pair; prints what the server holds, and its growth. Always true.

    `busy`: the part of its core that the server is to use; the message rate follows it.
    """
    server = await asyncio.to_thread(Server, run, database, RECONNECT_GRACE="5", CODE_TTL="30")
    endpoints = both(await asyncio.to_thread(database.add_pairs, server.port, pairs, 1024))
    users = await asyncio.to_thread(database.add_users, 200)
    connections = await connect_all(endpoints)
    messages = _Messages(connections, rate=pairs * 20.0)
    pairings = _Pairings(f"http://127.0.0.1:{server.port}", [user.access for user in users])
    work = [asyncio.ensure_future(messages.send_all()), asyncio.ensure_future(pairings.repeat())]
    samples: list[Sample] = []
    began = time.monotonic()
    used, at = cpu_seconds(server.pid), began
    while time.monotonic() - began < minutes * 60:
        done, _ = await asyncio.wait(work, timeout=INTERVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        now, spent = time.monotonic(), cpu_seconds(server.pid)
        part = (spent - used) / (now - at)
        used, at = spent, now
        messages.rate *= max(0.5, min(2.0, busy / max(part, 0.01))) ** 0.5
        snapshot = await asyncio.to_thread(server.snapshot)
        samples.append(Sample(now - began, resident_bytes(server.pid) / 2**20, snapshot))
        memory = ", ".join(f"{what} {size}" for what, size in snapshot.memory.items())
        run.say(
            f"busy {part:.0%}, {messages.sent} sent, {samples[-1].resident_mib:.1f} MiB ({memory}), {snapshot.counts}"
        )
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    close_all(connections)
    run.say(f"{messages.sent} messages, {pairings.made} pairings, failed: {dict(pairings.failed)}")
    seconds = minutes * 60
    for quarter in range(4):
        run.say(
            f"quarter {quarter + 1}: {_growth([one for one in samples if one.at * 4 // seconds == quarter])}"
        )
    steady = [one for one in samples if one.at >= seconds * WARM_UP]
    run.say(f"after the warm-up: {_growth(steady)}")
    run.say(f"by type: {largest_changes(steady[0].snapshot.types, steady[-1].snapshot.types)}")
    return True


def _growth(samples: Sequence[Sample]) -> str:
    if not samples:
        return "not measured"
    memory = slope([(one.at / 3600, one.resident_mib) for one in samples])
    objects = slope([(one.at / 3600, one.objects) for one in samples])
    first, last = samples[0], samples[-1]
    return (
        f"over {(last.at - first.at) / 60:.0f} min {memory:+.2f} MiB/h and {objects:+.0f} objects/h,"
        f" from {first.resident_mib:.1f} to {last.resident_mib:.1f} MiB, from {first.objects} to {last.objects} objects"
    )


@dataclass(slots=True)
class _Messages:
    """`rate`: messages a second, of all connections together."""

    connections: Sequence[Connection]
    rate: float
    sent: int = 0

    async def send_all(self) -> None:
        due = time.perf_counter()
        for connection in itertools.cycle(self.connections):
            connection.send(connection.endpoint.message(time.perf_counter_ns()))
            self.sent += 1
            due = max(due + 1 / self.rate, time.perf_counter() - 0.1)
            if (wait := due - time.perf_counter()) > 0.001:
                await asyncio.sleep(wait)


@dataclass(slots=True)
class _Pairings:
    """Twice a second two devices pair, join, share something and leave. `failed`: the errors, and how often."""

    url: str
    accesses: Sequence[str]
    made: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    async def repeat(self) -> None:
        for access in itertools.cycle(self.accesses):
            with (
                PairingClient(self.url, "desktop", access_token=access) as desktop,
                PairingClient(self.url, "mobile", access_token=access) as mobile,
            ):
                try:
                    await _pair(desktop, mobile)
                except (ClientError, OSError) as error:
                    self.failed[f"{type(error).__name__}: {error}"[:100]] += 1
                else:
                    self.made += 1
            await asyncio.sleep(0.4)


async def _pair(desktop: PairingClient, mobile: PairingClient) -> None:
    code = await desktop.generate_code()
    await mobile.redeem(code.code)
    async with await desktop.connect() as one, await mobile.connect() as other:
        await one.join(code.channel)
        await other.join(code.channel)
        await one.sync_settings({"gain": 1})
        await other.expect("settings_sync")
        await other.send({"heard": True}, id="1")
        await other.expect("ack")

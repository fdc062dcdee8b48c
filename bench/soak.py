"""A steady load for an hour: how much memory and how many objects the server holds, minute by minute."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.connections import Connection, close_all, take_all
from bench.machine import cpu_seconds, resident_bytes
from bench.ours import Site
from bench.patient import Held, Watched
from pairing_server.client import ClientError, PairingClient

EVERY = 30.0
# The first part of the time is for warming up: what is cached is cached then.
WARM_UP = 0.25


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The best line through the points: how much y grows with x."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    below = sum((x - mean_x) ** 2 for x, _ in points)
    return above / below if below else 0.0


def grown(before: Mapping[str, int], after: Mapping[str, int], count: int = 12) -> str:
    """The types with the largest differences."""
    change = {kind: after.get(kind, 0) - before.get(kind, 0) for kind in {**before, **after}}
    most = sorted((kind for kind in change if change[kind]), key=lambda kind: -abs(change[kind]))[:count]
    return ", ".join(f"{kind} {change[kind]:+d}" for kind in most) or "none"


async def run(
    site: Site,
    folder: Path,
    core: int,
    minutes: float,
    pairs: int,
    busy: float,
    say: Callable[[str], None],
) -> bool:
    """Pairs talk, devices come and go, others pair; prints what is held, and how it has grown after the warm-up."""
    server = await asyncio.to_thread(Watched, site, folder, core, RECONNECT_GRACE="5", CODE_TTL="30")
    both = await asyncio.to_thread(site.pairs_at, server.port, pairs, 1024)
    users = await asyncio.to_thread(site.users, 200)
    talkers = await take_all([seat for pair in both for seat in pair])
    load = _Load(talkers, rate=pairs * 20.0)
    meetings = _Meetings(f"http://127.0.0.1:{server.port}", [user.access for user in users])
    work = [asyncio.ensure_future(load.talk()), asyncio.ensure_future(meetings.go_on())]
    measured: list[tuple[float, float, Held]] = []
    began = time.monotonic()
    used, at = cpu_seconds(server.pid), began
    while time.monotonic() - began < minutes * 60:
        done, _ = await asyncio.wait(work, timeout=EVERY, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        now, spent = time.monotonic(), cpu_seconds(server.pid)
        part = (spent - used) / (now - at)
        used, at = spent, now
        load.rate *= max(0.5, min(2.0, busy / max(part, 0.01))) ** 0.5
        held = await asyncio.to_thread(server.look)
        resident = resident_bytes(server.pid) / 2**20
        measured.append((now - began, resident, held))
        memory = ", ".join(f"{what} {size}" for what, size in held.memory.items())
        say(f"busy {part:.0%}, {load.sent} sent, {resident:.1f} MiB ({memory}), {held.counts}")
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    close_all(talkers)
    say(f"{load.sent} messages, {meetings.held} meetings, failed: {dict(meetings.failed)}")
    _report(measured, minutes * 60, say)
    return True


def _report(
    measured: Sequence[tuple[float, float, Held]], seconds: float, say: Callable[[str], None]
) -> None:
    for quarter in range(4):
        say(
            f"quarter {quarter + 1}: {_growth([one for one in measured if one[0] * 4 // seconds == quarter])}"
        )
    steady = [one for one in measured if one[0] >= seconds * WARM_UP]
    say(f"after the warm-up: {_growth(steady)}")
    say(f"of them more, or fewer: {grown(steady[0][2].kinds, steady[-1][2].kinds)}")


def _growth(points: Sequence[tuple[float, float, Held]]) -> str:
    if not points:
        return "not measured"
    memory = slope([(at / 3600, resident) for at, resident, _ in points])
    objects = slope([(at / 3600, held.counts["objects"]) for at, _, held in points])
    (first_at, first_mib, first), (last_at, last_mib, last) = points[0], points[-1]
    return (
        f"over {(last_at - first_at) / 60:.0f} min {memory:+.2f} MiB/h and {objects:+.0f} objects/h,"
        f" from {first_mib:.1f} to {last_mib:.1f} MiB, from {first.counts['objects']} to {last.counts['objects']} objects"
    )


class _Load:
    """Messages there and back, so many a second in all."""

    def __init__(self, talkers: Sequence[Connection], rate: float) -> None:
        self.rate = rate
        self.sent = 0
        self._talkers = talkers

    async def talk(self) -> None:
        turn = itertools.cycle(self._talkers)
        due = time.perf_counter()
        while True:
            connection = next(turn)
            seat = connection.seat
            connection.send(f"{seat.before}{time.perf_counter_ns():020d}{seat.after}".encode())
            self.sent += 1
            due = max(due + 1 / self.rate, time.perf_counter() - 0.1)
            if (wait := due - time.perf_counter()) > 0.001:
                await asyncio.sleep(wait)


@dataclass(slots=True)
class _Meetings:
    """Twice a second two devices pair, meet, share something and go. `failed`: why some have not, and how often."""

    url: str
    accounts: Sequence[str]
    held: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    async def go_on(self) -> None:
        for access in itertools.cycle(self.accounts):
            with (
                PairingClient(self.url, "desktop", access_token=access) as desktop,
                PairingClient(self.url, "mobile", access_token=access) as mobile,
            ):
                try:
                    await _meet(desktop, mobile)
                except (ClientError, OSError) as error:
                    self.failed[f"{type(error).__name__}: {error}"[:100]] += 1
                else:
                    self.held += 1
            await asyncio.sleep(0.4)


async def _meet(desktop: PairingClient, mobile: PairingClient) -> None:
    code = await desktop.generate_code()
    await mobile.redeem(code.code)
    async with await desktop.connect() as shown, await mobile.connect() as held:
        await shown.join(code.channel)
        await held.join(code.channel)
        await shown.sync_settings({"gain": 1})
        await held.expect("settings_sync")
        await held.send({"heard": True}, id="1")
        await held.expect("ack")

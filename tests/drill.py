"""A restart under load: pairs that talk all the time, a server that is replaced beneath them, and what becomes of it.

`python -m tests.drill --pairs 500` (scripts/drill-restart) does it with a database of its own and prints figures;
tests/server/test_restart.py does it with a few.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pairing_server.client import ClientError, Closed, Connection, PairingClient
from pairing_server.db import migrations
from pairing_server.db.embedded.postgres import EmbeddedPostgres
from pairing_server.server.server import event_loop
from tests.cli.commands import environment, program
from tests.server.supervised import ServiceManager

log = logging.getLogger("drill")

# What one account with all connections needs.
SETTINGS = {
    "REGISTRATION": "open",
    "CODE_RATE": "1000000/300",
    "CODE_RATE_ADDRESS": "1000000/300",
    "CODES_PER_USER": "1000000",
    "CONNECTIONS_PER_USER": "1000000",
    "CONNECTIONS_PER_ADDRESS": "1000000",
    "JWT_KEYS": f"k1:{'s' * 32}",
}
PASSWORD = "a long enough password"
# Seconds: between two messages of a device, and before another try to connect, at random up to it.
EVERY = 1.0
BACKOFF = 0.5
# What one request or one wait of a device may take; and all of them are back after.
TIMEOUT = 60.0
WANTED = 12.0


@dataclass
class Device:
    """Connects whenever it is not connected, sends a message every second and again what has no ack."""

    client: PairingClient
    token: str
    channel: str
    joined: asyncio.Event = field(default_factory=asyncio.Event)
    joins: list[float] = field(default_factory=list)
    closed: Counter[int | None] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    unacknowledged: dict[str, bool] = field(default_factory=dict)
    got: Counter[str] = field(default_factory=Counter)
    pongs: int = 0
    connection: Connection | None = None
    # Told of joins, acks and pongs.
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def live(self) -> None:
        while True:
            try:
                await self._connect()
                await self._read()
            except Closed as closed:
                self.closed[closed.code] += 1
            except (ClientError, OSError) as error:
                self.refused[type(error).__name__ + ": " + str(error)[:80]] += 1
            self.joined.clear()
            if self.connection is not None:
                self.connection.drop()
                self.connection = None
            await asyncio.sleep(random.uniform(0, BACKOFF))

    async def _connect(self) -> None:
        self.connection = await self.client.connect(self.token)
        await self.connection.join(self.channel)
        self.joins.append(asyncio.get_running_loop().time())
        self.joined.set()
        await self._tell()
        for number in list(self.unacknowledged):
            await self._send(number)

    async def _read(self) -> None:
        assert self.connection is not None
        while True:
            message = await self.connection.receive(within=3600)
            if message["type"] == "ack":
                self.unacknowledged.pop(message["id"], None)
                await self._tell()
            elif message["type"] == "pong":
                self.pongs += 1
                await self._tell()
            elif message["type"] == "channel_message":
                self.got[message["id"]] += 1

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def talk(self, stop: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), random.uniform(0, EVERY))
        while not stop.is_set():
            self.sent += 1
            number = f"{self.client.device_type}-{self.sent}"
            self.unacknowledged[number] = False
            if self.joined.is_set():
                with suppress(ClientError, OSError):
                    await self._send(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY)

    async def _send(self, number: str) -> None:
        assert self.connection is not None
        again = {"again": True} if self.unacknowledged.get(number) else {}
        self.unacknowledged[number] = True
        message = {"type": "channel_message", "channelId": self.channel, "payload": {}, "id": number, **again}
        await self.connection.send_message(message)


@dataclass(frozen=True)
class Outcome:
    """Seconds are counted from SIGTERM."""

    devices: int
    ended: float
    ready: float
    back: list[float]
    closed: Counter[int | None]
    refused: Counter[str]
    sent: int
    missing: int
    twice: int

    @property
    def good(self) -> bool:
        """Whether all were back in time and nothing was lost."""
        return max(self.back) <= WANTED and self.missing == self.twice == 0

    def as_json(self) -> str:
        figures = {
            "devices": self.devices,
            "old process ended after": round(self.ended, 2),
            "new process ready after": round(self.ready, 2),
            "back, median": round(statistics.median(self.back), 2),
            "back, last": round(max(self.back), 2),
            "close codes": {str(code): count for code, count in self.closed.items()},
            "failed attempts": dict(self.refused),
            "messages sent": self.sent,
            "missing": self.missing,
            "arrived twice": self.twice,
        }
        return json.dumps(figures, indent=2)


async def pair_up(url: str, count: int) -> list[tuple[Device, Device]]:
    """So many pairs of one account, not yet connected."""
    pairs = []
    first = PairingClient(url, "desktop", timeout=TIMEOUT)
    await first.register("driller", PASSWORD)
    await first.login("driller", PASSWORD)
    access = first.access_token
    tokens = [await first.ws_token(), await PairingClient(url, "mobile", access_token=access).ws_token()]
    for _ in range(count):
        desktop = PairingClient(url, "desktop", access_token=access, timeout=TIMEOUT)
        mobile = PairingClient(url, "mobile", access_token=access, timeout=TIMEOUT)
        channel = await mobile.redeem((await desktop.generate_code()).code)
        pairs.append((Device(desktop, tokens[0], channel), Device(mobile, tokens[1], channel)))
    return pairs


async def drill(manager: ServiceManager, count: int, *, settle: float = 2.0) -> Outcome:
    """Start a server, connect that many pairs, restart it beneath them, and see what they have got in the end."""
    loop = asyncio.get_running_loop()
    process = manager.start()
    await asyncio.to_thread(manager.hears_of, "READY=1")
    pairs = await pair_up(manager.url, count)
    log.info("%d pairs are made", count)
    devices = [device for pair in pairs for device in pair]
    lives = [asyncio.ensure_future(device.live()) for device in devices]
    stop = asyncio.Event()
    await asyncio.gather(*(device.joined.wait() for device in devices))
    log.info("%d devices are in their channels", len(devices))
    talks = [asyncio.ensure_future(device.talk(stop)) for device in devices]
    await asyncio.sleep(settle)
    before = [len(device.joins) for device in devices]
    log.info("restarting")

    began = loop.time()
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, 60)
    ended = loop.time() - began
    migrate = program("migrate", "--before-start")
    await asyncio.to_thread(subprocess.run, migrate, env=manager.environ, check=True, capture_output=True)
    manager.start()
    await asyncio.to_thread(manager.hears_of, "READY=1")
    ready = loop.time() - began
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(
            *(_joined_again(device, count) for device, count in zip(devices, before, strict=True))
        )
    log.info("all are back")
    back = [device.joins[-1] - began for device in devices]

    stop.set()
    # No send waits for longer than its client does, and then for the close code as long.
    async with asyncio.timeout(3 * TIMEOUT):
        await asyncio.gather(*talks)
    log.info("all have stopped talking")
    try:
        async with asyncio.timeout(30):
            await _until_all_arrived(pairs)
    except TimeoutError:
        waiting = [device for device in devices if device.unacknowledged]
        log.error(
            "%d devices wait for acks; of them alive: %d, in their channels: %d",
            len(waiting),
            sum(not lives[devices.index(device)].done() for device in waiting),
            sum(device.joined.is_set() for device in waiting),
        )
    for life in lives:
        life.cancel()
    for result in await asyncio.gather(*lives, return_exceptions=True):
        if not isinstance(result, asyncio.CancelledError):
            raise RuntimeError("a device has given up") from result
    missing = sum(len(_expected(a) - b.got.keys()) for pair in pairs for a, b in (pair, pair[::-1]))
    return Outcome(
        devices=len(devices),
        ended=ended,
        ready=ready,
        back=back,
        closed=sum((device.closed for device in devices), Counter()),
        refused=sum((device.refused for device in devices), Counter()),
        sent=sum(device.sent for device in devices),
        missing=missing,
        twice=sum(times - 1 for device in devices for times in device.got.values()),
    )


def _expected(sender: Device) -> set[str]:
    return {f"{sender.client.device_type}-{n + 1}" for n in range(sender.sent)}


async def _joined_again(device: Device, before: int) -> None:
    async with device.changed:
        await device.changed.wait_for(lambda: len(device.joins) > before)


async def _until_all_arrived(pairs: list[tuple[Device, Device]]) -> None:
    """Whoever has an ack for all it sent, and a pong after its peer had, has got all."""
    for pair in pairs:
        for device in pair:
            async with device.changed:
                await device.changed.wait_for(lambda device=device: not device.unacknowledged)
    for pair in pairs:
        for device in pair:
            pongs = device.pongs
            assert device.connection is not None
            await device.connection.send_message({"type": "ping", "sequence": 1})
            async with device.changed:
                await device.changed.wait_for(lambda device=device, pongs=pongs: device.pongs > pongs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Restarts a server beneath connected pairs and prints what became of them."
    )
    parser.add_argument("--pairs", type=int, default=500)
    pairs = parser.parse_args().pairs
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    with (
        tempfile.TemporaryDirectory(prefix="pairing-drill-", ignore_cleanup_errors=True) as place,
        EmbeddedPostgres(Path(place) / "data") as database,
    ):
        migrations.migrate(database.url)
        given = {"DATABASE_URL": database.url, "DATA_DIR": str(Path(place) / "service"), **SETTINGS}
        manager = ServiceManager(environment(**given), Path(place))
        try:
            with asyncio.Runner(loop_factory=event_loop) as runner:
                outcome = runner.run(drill(manager, pairs))
        finally:
            manager.close()
    print(outcome.as_json())
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())

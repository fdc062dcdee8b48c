"""A restart under load: pairs that send messages all the time, and a server that is replaced meanwhile.

`python -m endure.restart --pairs 500` (scripts/drill-restart) does it with a database of its own and prints figures.
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
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.processes import run_folder
from harness.program import environment, program
from harness.service_manager import ServiceManager
from pairing_server.client import ClientError, Closed, Connection, PairingClient
from pairing_server.db import migrations
from pairing_server.db.embedded.postgres import EmbeddedPostgres
from pairing_server.server.server import event_loop

log = logging.getLogger("drill")

# What one account with all connections needs.
SETTINGS = {
    "REGISTRATION": "open",
    "CODE_RATE": "1000000/300",
    "CODE_RATE_ADDRESS": "1000000/300",
    "CODES_PER_USER": "1000000",
    "CONNECTIONS_PER_USER": "1000000",
    "CONNECT_RATE": "1000000/1",
    "WS_TOKEN_RATE": "1000000/1",
    "CONNECTIONS_PER_ADDRESS": "1000000",
    "JWT_KEYS": f"k1:{'s' * 32}",
}
PASSWORD = "a long enough password"
MESSAGE_INTERVAL_SECONDS = 1.0
# Before another try to connect, at random up to it.
BACKOFF_SECONDS = 0.5
# For one request or one wait of a device; and until all are back, as docs/protocol.md promises.
TIMEOUT_SECONDS = 60.0
MAX_BACK_SECONDS = 12.0


@dataclass
class Device:
    """Connects when it is not connected, sends a message every second, and again those without an ack."""

    client: PairingClient
    token: str
    channel: str
    joined: asyncio.Event = field(default_factory=asyncio.Event)
    joins: list[float] = field(default_factory=list)
    closed: Counter[int | None] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    # Number of a message without an ack → whether it has been sent.
    unacknowledged: dict[str, bool] = field(default_factory=dict)
    received: Counter[str] = field(default_factory=Counter)
    pongs: int = 0
    connection: Connection | None = None
    # Notified of joins, acks and pongs.
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def stay_connected(self) -> None:
        while True:
            try:
                self.connection = await self.client.connect(self.token)
                await self._join(self.connection)
                await self._read(self.connection)
            except Closed as closed:
                self.closed[closed.code] += 1
            except (ClientError, OSError) as error:
                self.refused[f"{type(error).__name__}: {error}"[:80]] += 1
            finally:
                self.joined.clear()
                if self.connection is not None:
                    self.connection.drop()
                    self.connection = None
            await asyncio.sleep(random.uniform(0, BACKOFF_SECONDS))

    async def _join(self, connection: Connection) -> None:
        await connection.join(self.channel)
        self.joins.append(asyncio.get_running_loop().time())
        self.joined.set()
        await self._notify()
        for number in list(self.unacknowledged):
            await self._send(connection, number)

    async def _read(self, connection: Connection) -> None:
        while True:
            message = await connection.receive(within=3600)
            if message["type"] == "ack":
                self.unacknowledged.pop(message["id"], None)
                await self._notify()
            elif message["type"] == "pong":
                self.pongs += 1
                await self._notify()
            elif message["type"] == "channel_message":
                self.received[message["id"]] += 1

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)

    async def joined_again(self, joins: int) -> None:
        """Return once it has joined more than that many times."""
        await self._wait_until(lambda: len(self.joins) > joins)

    async def acknowledged(self) -> None:
        """Return once each message has an ack."""
        await self._wait_until(lambda: not self.unacknowledged)

    async def send_messages(self, stop: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), random.uniform(0, MESSAGE_INTERVAL_SECONDS))
        while not stop.is_set():
            self.sent += 1
            number = f"{self.client.device_type}-{self.sent}"
            self.unacknowledged[number] = False
            if self.connection is not None and self.joined.is_set():
                with suppress(ClientError, OSError):
                    await self._send(self.connection, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), MESSAGE_INTERVAL_SECONDS)

    async def _send(self, connection: Connection, number: str) -> None:
        again = {"again": True} if self.unacknowledged.get(number) else {}
        self.unacknowledged[number] = True
        message = {"type": "channel_message", "channelId": self.channel, "payload": {}, "id": number, **again}
        await connection.send_message(message)

    async def ping(self) -> None:
        """Return with the pong: all that the peer had sent before has arrived."""
        pongs = self.pongs
        if self.connection is None:
            raise RuntimeError("the device is not connected")
        await self.connection.send_message({"type": "ping", "sequence": 1})
        await self._wait_until(lambda: self.pongs > pongs)

    @property
    def numbers(self) -> set[str]:
        """Of all messages that it has sent."""
        return {f"{self.client.device_type}-{n + 1}" for n in range(self.sent)}


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
        return max(self.back) <= MAX_BACK_SECONDS and self.missing == self.twice == 0

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


async def pair_devices(url: str, count: int) -> list[tuple[Device, Device]]:
    """That many pairs of one account, not yet connected."""
    first = PairingClient(url, "desktop", timeout=TIMEOUT_SECONDS)
    await first.register("driller", PASSWORD)
    await first.login("driller", PASSWORD)
    access = first.access_token
    tokens = [await first.ws_token(), await PairingClient(url, "mobile", access_token=access).ws_token()]
    pairs = []
    for _ in range(count):
        desktop = PairingClient(url, "desktop", access_token=access, timeout=TIMEOUT_SECONDS)
        mobile = PairingClient(url, "mobile", access_token=access, timeout=TIMEOUT_SECONDS)
        channel = await mobile.redeem((await desktop.generate_code()).code)
        pairs.append((Device(desktop, tokens[0], channel), Device(mobile, tokens[1], channel)))
    return pairs


async def drill(manager: ServiceManager, count: int, *, settle_seconds: float = 2.0) -> Outcome:
    """Start a server, connect that many pairs, replace the server, and compare what was sent with what arrived."""
    loop = asyncio.get_running_loop()
    process = manager.start()
    await asyncio.to_thread(manager.receive_until, "READY=1")
    pairs = await pair_devices(manager.url, count)
    log.info("paired pairs=%d", count)
    devices = [device for pair in pairs for device in pair]
    connecting = [asyncio.ensure_future(device.stay_connected()) for device in devices]
    stop = asyncio.Event()
    await asyncio.gather(*(device.joined.wait() for device in devices))
    log.info("joined devices=%d", len(devices))
    sending = [asyncio.ensure_future(device.send_messages(stop)) for device in devices]
    await asyncio.sleep(settle_seconds)
    before = [len(device.joins) for device in devices]
    log.info("restarting")

    began = loop.time()
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, 60)
    ended = loop.time() - began
    migrate = program("migrate", "--before-start")
    await asyncio.to_thread(subprocess.run, migrate, env=manager.environ, check=True, capture_output=True)
    manager.start()
    await asyncio.to_thread(manager.receive_until, "READY=1")
    ready = loop.time() - began
    async with asyncio.timeout(TIMEOUT_SECONDS):
        for device, joins in zip(devices, before, strict=True):
            await device.joined_again(joins)
    back = [device.joins[-1] - began for device in devices]
    log.info("joined again devices=%d", len(devices))

    stop.set()
    # A send waits no longer than its client does, and then as long for the close code.
    async with asyncio.timeout(3 * TIMEOUT_SECONDS):
        await asyncio.gather(*sending)
    log.info("sending stopped")
    try:
        async with asyncio.timeout(30):
            # A device with an ack for each message, and then a pong, has received all that its peer sent.
            for device in devices:
                await device.acknowledged()
            for device in devices:
                await device.ping()
    except TimeoutError:
        waiting = [device for device in devices if device.unacknowledged]
        in_channels = sum(device.joined.is_set() for device in waiting)
        log.error("acks are missing devices=%d in_channels=%d", len(waiting), in_channels)
    for task in connecting:
        task.cancel()
    for result in await asyncio.gather(*connecting, return_exceptions=True):
        if not isinstance(result, asyncio.CancelledError):
            raise RuntimeError("a device has stopped connecting") from result
    return Outcome(
        devices=len(devices),
        ended=ended,
        ready=ready,
        back=back,
        closed=sum((device.closed for device in devices), Counter()),
        refused=sum((device.refused for device in devices), Counter()),
        sent=sum(device.sent for device in devices),
        missing=sum(len(a.numbers - b.received.keys()) for pair in pairs for a, b in (pair, pair[::-1])),
        twice=sum(times - 1 for device in devices for times in device.received.values()),
    )


def run(folder: Path, pairs: int) -> Outcome:
    """The drill with a database of its own in `folder`."""
    with EmbeddedPostgres(folder / "database") as database:
        migrations.migrate(database.url)
        given = {"DATABASE_URL": database.url, "DATA_DIR": str(folder / "service"), **SETTINGS}
        manager = ServiceManager(environment(**given), folder)
        try:
            with asyncio.Runner(loop_factory=event_loop) as runner:
                return runner.run(drill(manager, pairs))
        finally:
            manager.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/drill-restart", description="Restarts a server with connected pairs and prints figures."
    )
    parser.add_argument("--pairs", type=int, default=500)
    pairs = parser.parse_args().pairs
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    with run_folder("pairing-drill-") as (folder, _):
        outcome = run(folder, pairs)
    print(outcome.as_json())
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())

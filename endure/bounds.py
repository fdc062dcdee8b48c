"""What clients without an account, or with one, can take: memory by bodies without an end, descriptors, and a core."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from endure.run import Run
from endure.server import Server
from harness.load_client import (
    Connection,
    Endpoint,
    HandshakeFailed,
    HttpConnection,
    Refused,
    both,
    close_all,
    connect,
    connect_all,
    read_metrics,
)
from harness.machine import cpu_seconds, resident_bytes
from harness.pairing_database import PairingDatabase

MIB = 1024 * 1024
# Of each kind of URL.
URLS = ("/metrics", "/docs", "/audit", "/client/pairing.js", "/api/auth/login", "/ws")
OWED_BYTES = 6
WAIT_SECONDS = 10.0
# What is wanted: so much memory for each connection, part of a core, and the longest answer to a probe.
MAX_HELD_BYTES = 64 * 1024
MAX_CORE = 0.6
MAX_HEALTH_MS = 50.0
SETTINGS_KEYS = 64
SETTINGS_BYTES = 14 * 1024


async def memory(run: Run, database: PairingDatabase, connections: int) -> bool:
    """Whether bodies of 1 MiB that lack their last bytes cost less memory than they have bytes."""
    server = await asyncio.to_thread(Server, run, database)
    (await HttpConnection.open(server.port)).close()
    before = resident_bytes(server.pid)
    body = bytes(MIB - OWED_BYTES)
    clients = []
    for url in itertools.islice(itertools.cycle(URLS), connections):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        clients.append(writer)
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n" if url == "/ws" else ""
        writer.write(
            f"GET {url} HTTP/1.1\r\nHost: a\r\n{upgrade}Content-Length: {MIB}\r\n\r\n".encode() + body
        )
    highest = before
    async with _probes(server.port, "/healthz") as answers:
        deadline = time.monotonic() + WAIT_SECONDS / 2
        while time.monotonic() < deadline:
            highest = max(highest, resident_bytes(server.pid))
            await asyncio.sleep(0.05)
    for writer in clients:
        writer.close()
    run.say(
        f"{connections} bodies of 1 MiB that lack {OWED_BYTES} bytes: {before / MIB:.0f} → {highest / MIB:.0f} MiB;"
        f" {_told(answers)}"
    )
    return highest - before < connections * MAX_HELD_BYTES


async def descriptors(run: Run, database: PairingDatabase, limit: int) -> bool:
    """Whether probes and other addresses are answered, and little is logged, while one takes all descriptors it can get."""
    server = await asyncio.to_thread(Server, run, database, open_files=limit)
    pairs = await asyncio.to_thread(database.add_pairs, server.port, limit // 2 + 2, 200)
    log = run.folder / "server.log"
    async with _probes(server.port, "/readyz") as answers:
        # One after the other: that is how sockets get the numbers beyond those of new connections.
        connected = [c for e in both(pairs) if (c := await _try_to_connect(e))]
        await asyncio.sleep(WAIT_SECONDS)
    written = log.read_text(errors="replace")
    run.say(
        f"{2 * len(pairs)} devices and {limit} descriptors: {len(connected)} connected; {_told(answers)}; the log has"
        f" {len(written) / MIB:.1f} MiB and {written.count('Traceback')} tracebacks"
    )
    close_all(connected)
    await asyncio.sleep(1)
    idle = [_idle(server.port) for _ in range(limit - 50)]
    async with _probes(server.port, "/healthz") as others:
        await asyncio.sleep(WAIT_SECONDS)
    for client in idle:
        client.close()
    run.say(f"{len(idle)} idle sockets of one address: {_told(others)} to another")
    few = all(sum(ms is not None for ms in each) >= 0.9 * len(each) for each in (answers, others))
    return few and written.count("Traceback") == 0 and len(written) < MIB


async def core(run: Run, database: PairingDatabase, pairs: int, rate: float) -> bool:
    """Whether large settings, sent by both devices of some pairs, leave a part of the core, within all other limits."""
    server = await asyncio.to_thread(
        Server, run, database, MESSAGE_RATE="60", MESSAGE_BURST="120", FRAME_RATE="200"
    )
    endpoints = both(await asyncio.to_thread(database.add_pairs, server.port, pairs, 200))
    connections = await connect_all(endpoints)
    used, began = cpu_seconds(server.pid), time.monotonic()
    async with _probes(server.port, "/healthz") as answers:
        await asyncio.gather(*(_send_settings(c, n, rate) for n, c in enumerate(connections)))
    spent, seconds = cpu_seconds(server.pid) - used, time.monotonic() - began
    metrics = await read_metrics(server.port)
    handled = (
        metrics['pairing_messages_relayed_total{type="settings_sync"}']
        + metrics["pairing_settings_echoes_total"]
    )
    close_all(connections)
    run.say(
        f"{pairs} pairs, a settings_sync of {SETTINGS_BYTES // 1024} KiB and {SETTINGS_KEYS} keys {rate:.0f} times a"
        f" second from each device: {spent / seconds:.0%} of a core, {1000 * spent / handled:.2f} ms for each of {handled:.0f}"
        f" messages; {_told(answers)}"
    )
    times = [ms for ms in answers if ms is not None]
    return spent / seconds < MAX_CORE and max(times, default=MAX_HEALTH_MS) < MAX_HEALTH_MS


async def _send_settings(connection: Connection, number: int, rate: float) -> None:
    filling = "x" * (SETTINGS_BYTES // SETTINGS_KEYS - 24)
    began = time.monotonic()
    for step in itertools.count():
        await asyncio.sleep(max(0.0, began + step / rate - time.monotonic()))
        if time.monotonic() > began + WAIT_SECONDS:
            return
        settings = {f"key-{key:02}": f"{number}-{step}-{filling}" for key in range(SETTINGS_KEYS)}
        connection.send(json.dumps({"type": "settings_sync", "settings": settings}).encode())


async def _try_to_connect(endpoint: Endpoint) -> Connection | None:
    with suppress(HandshakeFailed, Refused, TimeoutError, OSError):
        async with asyncio.timeout(1):
            return await connect(endpoint)
    return None


def _idle(port: int) -> socket.socket:
    """A connection from another address of the loopback that sends nothing."""
    client = socket.socket()
    client.bind(("127.0.0.2", 0))
    client.connect(("127.0.0.1", port))
    return client


@asynccontextmanager
async def _probes(port: int, path: str) -> AsyncIterator[list[float | None]]:
    """Ten requests a second, each on a connection of its own: how many milliseconds each took, None without an answer."""
    answers: list[float | None] = []

    async def probe() -> None:
        while True:
            answers.append(await _probe(port, path))
            await asyncio.sleep(0.1)

    probing = asyncio.ensure_future(probe())
    try:
        yield answers
    finally:
        probing.cancel()


async def _probe(port: int, path: str) -> float | None:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(2):
            http = await HttpConnection.open(port)
            try:
                status, _ = await http.get(path)
            finally:
                http.close()
    except (OSError, TimeoutError):
        return None
    return (time.perf_counter() - began) * 1000 if status == 200 else None


def _told(answers: Sequence[float | None]) -> str:
    times = [ms for ms in answers if ms is not None]
    return f"{len(times)} of {len(answers)} probes answered, the slowest in {max(times, default=0):.0f} ms"

"""A server with the embedded database: after PostgreSQL dies, or its disk was full, it works again by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from harness.program import environment
from pairing_server.client import PairingClient
from tests.cli.serving import Serving, serving

PASSWORD = "a long enough password"


@pytest.fixture
def home() -> Iterator[Path]:
    """Not below pytest's own folder, which is closed to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="pairing-own-", dir="/tmp", ignore_cleanup_errors=True) as place:
        yield Path(place)


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A disk of its own that has little room."""
    disk = home / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m,mode=0755", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes root, and the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def reasons(server: Serving) -> list[str]:
    """Why it is not ready; nothing if it is."""
    try:
        with urllib.request.urlopen(f"{server.url}/readyz", timeout=20):
            return []
    except urllib.error.HTTPError as error:
        with error:
            found: list[str] = json.load(error)["details"]["reasons"]
            return found


def until(server: Serving, *, ready: bool) -> list[str]:
    """Ask ten times a second until it is ready, or is not; why it is not."""
    while bool(found := reasons(server)) == ready:
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"it has ended with {server.process.wait(0.1)}")
    return found


def fill(place: Path) -> None:
    """Leave no room on the disk."""
    with contextlib.suppress(OSError), place.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


async def write_until_refused(url: str) -> None:
    """Write until PostgreSQL has no room for its log, upon which it dies."""
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            while True:
                await connection.execute(
                    "SELECT pg_logical_emit_message(true, 'filling', repeat('x', 1000000))"
                )
    finally:
        connection.terminate()


def test_a_postgresql_that_was_killed_is_started_again(home: Path) -> None:
    with serving(environment(PORT="0", DATA_DIR="data"), home) as server:
        os.kill(int((home / "data/postgres/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        assert until(server, ready=False) == ["database_unreachable"]
        until(server, ready=True)
        assert server.status("/healthz") == 200
        server.stop()


def test_with_a_full_disk_live_channels_go_on_and_all_is_well_when_there_is_room(small_disk: Path) -> None:
    asyncio.run(full_disk(small_disk))


async def full_disk(small_disk: Path) -> None:
    with (
        serving(environment(PORT="0", DATA_DIR="data"), small_disk) as server,
        contextlib.ExitStack() as clients,
    ):
        desktop = clients.enter_context(PairingClient(server.url, "desktop"))
        await desktop.register("alice", PASSWORD)
        await desktop.login("alice", PASSWORD)
        mobile = clients.enter_context(PairingClient(server.url, "mobile", access_token=desktop.access_token))
        code = await desktop.generate_code()
        await mobile.redeem(code.code)
        async with await desktop.connect() as shown, await mobile.connect() as held:
            await shown.join(code.channel)
            await held.join(code.channel)
            filling = small_disk / "filling"
            fill(filling)
            await write_until_refused(f"postgresql://postgres@/pairing?host={small_disk}/data/postgres")
            assert until(server, ready=False)[0].startswith("database_")
            for number in range(20):
                await shown.send({"n": number})
                assert (await held.expect("channel_message"))["payload"] == {"n": number}
            assert server.status("/healthz") == 200
            filling.unlink()
            until(server, ready=True)
            again = await desktop.generate_code()
            assert await mobile.redeem(again.code) == again.channel
        server.stop()

"""A server that is killed, under load and while the database is away, loses no event of its audit log and doubles none."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asyncpg
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from harness.program import environment
from pairing_server.audit.seals import SealKey
from tests.cli.commands import Operator
from tests.cli.serving import Serving, serving
from tests.conftest import execute
from tests.longer import count

# With the database there, and with the database away.
KILLS = count(2, 10)
_, SEAL_KEY = SealKey.generate()


@contextlib.contextmanager
def served(url: str, folder: Path) -> Iterator[Serving]:
    settings = {
        "DATABASE_URL": url,
        "JWT_KEYS": f"k1:{'s' * 32}",
        "AUDIT_SEAL_KEY": SEAL_KEY,
        "DATA_DIR": str(folder / "data"),
        "TRUSTED_PROXIES": "127.0.0.1",
        "PORT": "0",
    }
    with serving(environment(**settings), folder) as server:
        yield server


class Load:
    """Requests with bad tokens, each from another address, so that each is an event of its own."""

    def __init__(self) -> None:
        self._sent = 0
        self.answered: list[str] = []

    async def until(self, url: str, count: int, then: asyncio.Event) -> None:
        """Ask eight at a time until so many were answered; then set `then`, and go on until no answer comes."""
        wanted = len(self.answered) + count
        client = AsyncHTTPClient(force_instance=True, max_clients=8)

        async def ask() -> None:
            while True:
                self._sent += 1
                number = self._sent
                address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
                headers = {"Authorization": "Bearer nonsense", "X-Forwarded-For": address}
                try:
                    answer = await client.fetch(
                        HTTPRequest(f"{url}/api/pairings", headers=headers, request_timeout=10),
                        raise_error=False,
                    )
                except Exception:
                    return
                if answer.code != 401:
                    return
                self.answered.append(answer.headers["X-Request-ID"])
                if len(self.answered) >= wanted:
                    then.set()

        await asyncio.gather(*(ask() for _ in range(8)))
        then.set()
        client.close()


def database_away(url: str, name: str, admin: str, *, away: bool) -> None:
    execute(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS {'false' if away else 'true'}")
    if away:
        execute(admin, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


async def recorded(url: str) -> tuple[Counter[str], int]:
    """How often each refused request was recorded, and how many gaps there are."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT request_id::text AS id FROM audit_events WHERE event = 'auth.token_rejected'"
        )
        gaps = await connection.fetchval("SELECT count(*) FROM audit_events WHERE event = 'audit.gap'")
        return Counter(row["id"] for row in rows), gaps
    finally:
        await connection.close()


def test_killed_with_and_without_its_database_every_event_is_there_once_and_the_log_verifies(
    database_url: str, postgres: str, tmp_path: Path
) -> None:
    admin = postgres.replace("/pairing?", "/postgres?")
    name = re.search(r"/(test_\d+)\?", database_url)
    assert name is not None
    load, chance = Load(), random.Random(5)

    async def kill(server: Serving, *, away: bool) -> None:
        due = asyncio.Event()
        asking = asyncio.ensure_future(load.until(server.url, chance.randrange(100, 500), due))
        if away:
            await asyncio.to_thread(database_away, database_url, name[1], admin, away=True)
        await due.wait()
        server.process.kill()
        await asking

    for turn in range(KILLS):
        away = turn % 2 == 1
        with served(database_url, tmp_path) as server:
            asyncio.run(kill(server, away=away))
        if away:
            database_away(database_url, name[1], admin, away=False)
    assert len(load.answered) > KILLS * 100
    with served(database_url, tmp_path) as server:
        server.stop()
    found, gaps = asyncio.run(recorded(database_url))
    assert gaps == 0
    missing = set(load.answered) - set(found)
    assert not missing, (len(missing), len(load.answered))
    # What was not answered any more may have been recorded all the same: once.
    assert set(found.values()) == {1}
    operator = Operator(database_url, tmp_path, AUDIT_SEAL_KEY=SEAL_KEY, DATA_DIR=str(tmp_path / "data"))
    told = operator.says("audit", "verify")
    assert "are right" in told
    assert not list((tmp_path / "data" / "audit-spool").iterdir())
    sys.stdout.write(f"{len(load.answered)} answered, {len(found)} recorded\n{told}")

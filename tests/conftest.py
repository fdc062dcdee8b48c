"""A real PostgreSQL for the whole run, a fresh migrated database and a running node for each test."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from tornado.ioloop import IOLoop

from pairing_server.audit.recorder import AuditLog
from pairing_server.audit.seals import SealKey
from pairing_server.config import Configuration
from pairing_server.db import migrations, roles
from pairing_server.db.embedded.postgres import EmbeddedPostgres
from pairing_server.security.keyfile import KeyFile
from pairing_server.security.keys import generate_key
from pairing_server.security.limits import Rate
from pairing_server.server.server import Node
from tests import leaks
from tests.devices import Site

_numbers = itertools.count(1)

# How busy the machine is says nothing about the code.
settings.register_profile("pairing", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pairing")


def pytest_configure(config: pytest.Config) -> None:
    AuditLog.strict = True
    leaks.watch(config)


async def execute_within(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def execute(url: str, *statements: str) -> None:
    """Run statements outside any test's loop; within one: `execute_within`."""
    with asyncio.Runner() as runner:
        runner.run(execute_within(url, *statements))


@pytest.fixture(scope="session", autouse=True)
def no_stray_loop() -> None:
    """The first IOLoop asks asyncio for the loop that there was before, and asyncio would make one that nobody closes."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an embedded PostgreSQL whose database `pairing` is migrated and used as a template only."""
    folder = Path(tempfile.mkdtemp(prefix="pairing-tests-"))
    server = EmbeddedPostgres(folder)
    try:
        url = server.start()
        # Nothing here must survive a power cut; and what it does by itself, whenever it likes, would hold up what a
        # test waits for: a seal ends before the oldest transaction of any database.
        execute(
            url,
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET synchronous_commit = off",
            "ALTER SYSTEM SET autovacuum = off",
            "SELECT pg_reload_conf()",
        )
        migrations.migrate(url)
        roles.make_running(url)
        yield url
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def empty_database(postgres: str) -> Iterator[str]:
    """The URL of a database of the test's own, with nothing in it."""
    yield from fresh_database(postgres, "template0")


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """The URL of a migrated database of the test's own."""
    yield from fresh_database(postgres, "pairing")


def fresh_database(postgres: str, template: str) -> Iterator[str]:
    """The URL of a new database, which is dropped in the end."""
    name = f"test_{next(_numbers)}"
    admin = postgres.replace("/pairing?", "/postgres?")
    execute(admin, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY = wal_log")
    yield postgres.replace("/pairing?", f"/{name}?")
    execute(admin, f"DROP DATABASE {name} WITH (FORCE)")


# The limits a test is not about are out of its way; a test of a limit sets it.
CONFIGURATION = Configuration(
    port=0,
    data_dir=Path("/nonexistent"),
    jwt_keys=(generate_key(),),
    audit_seal_key=SealKey.generate()[0],
    registration="open",
    public_url="http://pairing.test",
    code_rate=Rate(1000, 300),
    code_rate_address=Rate(10_000, 300),
    codes_per_user=1000,
    connections_per_user=1000,
    connections_per_address=10_000,
    handshake_failures=Rate(1000, 60),
    join_rate=Rate(1000, 10),
)

StartNode = Callable[..., Site]


@pytest.fixture
def start_node(io_loop: IOLoop, database_url: str) -> Iterator[StartNode]:
    """Starts nodes on the test's database: start_node(code_ttl=1, …) with any setting."""
    sites: list[Site] = []

    def start(keyfile: KeyFile | None = None, **changed: Any) -> Site:
        async def begin() -> Site:
            url = database_url.replace("//postgres@", f"//{roles.RUNNING}@")
            node = Node(replace(CONFIGURATION, **changed), url, keyfile)
            [(_, port), *_] = await node.start()
            return Site(node, port)

        site: Site = io_loop.run_sync(begin)
        sites.append(site)
        return site

    yield start

    async def end(site: Site) -> None:
        await site.close()
        await site.node.stop()
        await leaks.RUN.read_audit(database_url)

    for site in sites:
        io_loop.run_sync(lambda site=site: end(site))


@pytest.fixture
def site(start_node: StartNode) -> Site:
    """A running node with the settings of the tests."""
    return start_node()

"""A real PostgreSQL for the whole run, a fresh migrated database and a running node for each test."""

from __future__ import annotations

import asyncio
import itertools
import logging
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
from tests import leaks
from tests.databases import EMPTY, Databases
from tests.devices import Site
from tests.faults.sites import ending, started

_numbers = itertools.count(1)

# How busy the machine is says nothing about the code.
settings.register_profile("pairing", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pairing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a minute begins first: at the end one worker alone would be busy with it."""
    items.sort(key=lambda item: "test_systemd_install" not in item.nodeid)


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


def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query, outside any test's loop."""

    async def fetch_within() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    with asyncio.Runner() as runner:
        return runner.run(fetch_within())


@pytest.fixture(scope="session", autouse=True)
def no_stray_loop() -> None:
    """The first IOLoop asks asyncio for the loop that there was before, and asyncio would make one that is never closed."""
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def io_loop(no_stray_loop: None) -> Iterator[IOLoop]:
    """The event loop of all tests of a worker, so that several of them can share a node or a browser."""
    loop = IOLoop()
    loop.make_current()
    yield loop
    loop.clear_current()
    loop.close(all_fds=True)


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Puts the root logger back as pytest needs it: a command that runs in this process configures it."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


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


@pytest.fixture(scope="session")
def databases(postgres: str) -> Databases:
    """The migrated databases of a worker."""
    return Databases(lambda: fresh_database(postgres, "pairing"))


@pytest.fixture(scope="module")
def module_database_url(databases: Databases) -> Iterator[str]:
    """The URL of a migrated database that the tests of a module share."""
    yield from databases.use()


@pytest.fixture
def database_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """The URL of a migrated database of the test's own, or, where it is marked with `one_node`, of its module."""
    if request.node.get_closest_marker("one_node"):
        url: str = request.getfixturevalue("module_database_url")
        yield url
        execute(url, EMPTY)
    else:
        yield from databases.use()


def fresh_database(postgres: str, template: str) -> Iterator[str]:
    """The URL of a new database, which is dropped in the end."""
    name = f"test_{next(_numbers)}"
    admin = postgres.replace("/pairing?", "/postgres?")
    execute(admin, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY = file_copy")
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
    http_connections_per_address=10_000,
    handshake_failures=Rate(1000, 60),
    join_rate=Rate(1000, 10),
    service_rate=Rate(1000, 10),
)

StartNode = Callable[..., Site]


def as_running(database_url: str) -> str:
    """The URL for the role that a node runs as."""
    return database_url.replace("//postgres@", f"//{roles.RUNNING}@")


@pytest.fixture
def start_node(io_loop: IOLoop, database_url: str) -> Iterator[StartNode]:
    """Starts nodes on the test's database: start_node(code_ttl=1, …) with any setting.

    No job runs by itself (a test of one calls it: `Site.run`) but with start_node(timers=True).
    """
    sites: list[Site] = []

    def start(keyfile: KeyFile | None = None, *, timers: bool = False, **changed: Any) -> Site:
        config, url = replace(CONFIGURATION, **changed), as_running(database_url)
        sites.append(io_loop.run_sync(lambda: started(config, url, keyfile, timers=timers)))
        return sites[-1]

    yield start
    for site in sites:
        io_loop.run_sync(lambda site=site: ending(site, database_url))


@pytest.fixture
def own_site(start_node: StartNode) -> Site:
    """A running node of the test's own, which it may stop or change, in a module that is marked with `one_node`, too."""
    return start_node()


@pytest.fixture(scope="module")
def module_configuration() -> Configuration:
    """The settings of the node that the tests of a module share; a module that needs others has this fixture, too."""
    return CONFIGURATION


@pytest.fixture(scope="module")
def module_site(
    io_loop: IOLoop, module_database_url: str, module_configuration: Configuration
) -> Iterator[Site]:
    """A running node that the tests of a module share."""
    site: Site = io_loop.run_sync(lambda: started(module_configuration, as_running(module_database_url)))
    yield site
    io_loop.run_sync(lambda: ending(site, module_database_url))


@pytest.fixture
def site(request: pytest.FixtureRequest, io_loop: IOLoop, database_url: str) -> Iterator[Site]:
    """A running node with the settings of the tests: the test's own, or, where it is marked with `one_node`, its
    module's, with no connection and no row, but with what a node remembers and counts."""
    if not request.node.get_closest_marker("one_node"):
        yield request.getfixturevalue("start_node")()
        return
    site: Site = request.getfixturevalue("module_site")
    site.keep_keys_secret()
    yield site

    async def leave() -> None:
        await site.leave()
        await leaks.RUN.read_audit(database_url)

    io_loop.run_sync(leave)

"""PgBouncer before the database: with session pooling all works, with the others nothing begins, and one line says why."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from harness.pgbouncer import pgbouncer
from pairing_server.cli.doctor.checks import check_database
from pairing_server.db import migrations, roles
from pairing_server.db.database import Database
from pairing_server.server.server import Node
from pairing_server.server.startup_checks import StartError, check_schema
from tests.cli.commands import Operator
from tests.conftest import CONFIGURATION
from tests.devices import Site
from tests.faults.sites import ending
from tests.programs import needs

pytestmark = needs("pgbouncer")
REFUSAL = "pool_mode = session"

# The URL of a test's database through a PgBouncer with that pool_mode.
Pooled = Callable[..., str]


@pytest.fixture(scope="module")
def ports(postgres: str) -> Iterator[Callable[[str], int]]:
    """The port of a PgBouncer with that pool_mode, started when it is first asked for."""
    with ExitStack() as running:
        found: dict[str, int] = {}

        def port(mode: str) -> int:
            if mode not in found:
                folder = Path(tempfile.mkdtemp(prefix="pairing-pgbouncer-", dir="/tmp"))
                running.callback(shutil.rmtree, folder)
                found[mode] = running.enter_context(pgbouncer(folder, postgres, mode))
            return found[mode]

        yield port


@pytest.fixture
def pooled(database_url: str, ports: Callable[[str], int]) -> Pooled:
    name = database_url.rpartition("?")[0].rpartition("/")[2]

    def url(mode: str, role: str = roles.RUNNING) -> str:
        return f"postgresql://{role}@127.0.0.1:{ports(mode)}/{name}"

    return url


async def test_a_pairing_goes_as_always_through_session_pooling(pooled: Pooled, database_url: str) -> None:
    node = Node(CONFIGURATION, pooled("session"))
    [(_, port), *_] = await node.start(timers=False)
    site = Site(node, port)
    try:
        desktop, mobile = await site.pair()
        mobile.socket.send({"type": "channel_message", "channelId": mobile.channel, "payload": {"n": 1}})
        assert (await desktop.socket.expect("channel_message"))["payload"] == {"n": 1}
        settings = await node.database.once(
            "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('timezone')"
        )
        assert settings is not None and tuple(settings) == ("4s", "2s", "UTC")
    finally:
        await ending(site, database_url)


def test_every_command_goes_as_always_through_session_pooling(pooled: Pooled, tmp_path: Path) -> None:
    operator = Operator(pooled("session"), tmp_path, MIGRATE_DATABASE_URL=pooled("session", "postgres"))
    assert migrations.head() in operator.says("migrate")
    operator.says("user", "add", "alice", stdin="a long enough password\n")
    assert operator.says("user", "list").startswith("alice\t")
    assert "account.created" in operator.says("audit", "list")


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_other_pooling_is_refused_at_the_start(pooled: Pooled, mode: str) -> None:
    node = Node(CONFIGURATION, pooled(mode))
    try:
        with pytest.raises(StartError, match=REFUSAL):
            await node.start(timers=False)
    finally:
        await node.release()


async def test_transaction_pooling_is_refused_also_while_others_use_it(pooled: Pooled) -> None:
    """What they have prepared on the connections that all share is in the way of others."""
    others = [await asyncpg.connect(pooled("transaction")) for _ in range(4)]
    await others[0].fetchval("SELECT 1")
    database = Database(pooled("transaction"))
    try:
        with pytest.raises(StartError, match=REFUSAL):
            await check_schema(database)
    finally:
        await database.close()
        for other in others:
            other.terminate()


async def test_doctor_names_it(pooled: Pooled) -> None:
    [finding] = await check_database(replace(CONFIGURATION, database_url=pooled("transaction")))
    assert REFUSAL in finding.problem


@pytest.mark.parametrize("command", [("migrate",), ("user", "list"), ("audit", "verify"), ("serve",)])
def test_each_command_says_so_in_one_line(pooled: Pooled, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = Operator(pooled("transaction"), tmp_path).run(*command)
    assert done.status == 1
    [line] = done.text.strip().splitlines()
    assert REFUSAL in line


async def test_options_that_it_does_not_take_are_named_with_what_to_do(pooled: Pooled) -> None:
    database = Database(f"{pooled('session')}?options=-c%20work_mem%3D5MB")
    try:
        with pytest.raises(StartError, match="ALTER ROLE"):
            await check_schema(database)
    finally:
        await database.close()

"""A database that a newer release has migrated: this release goes on with it where the migration says so."""

from __future__ import annotations

import asyncio
import json
import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from harness.program import environment
from pairing_server.cli.doctor.checks import check_database
from pairing_server.db import migrations
from pairing_server.db.database import Database
from pairing_server.db.embedded.postgres import EmbeddedPostgres
from pairing_server.server.server import Node
from pairing_server.server.startup_checks import StartError, check_schema
from tests.cli.commands import Operator, command
from tests.conftest import CONFIGURATION, as_running, execute, fetch, fresh_database
from tests.db import newer
from tests.db.test_migrations import REVISIONS, SCRIPTS
from tests.devices import Site
from tests.faults.sites import ending

PASSWORD = "a long enough password"
# The first migration that must say with which releases it works.
FIRST_TO_SAY = "0008"


def check(url: str) -> str:
    async def once() -> str:
        database = Database(url)
        try:
            return await check_schema(database)
        finally:
            await database.close()

    return asyncio.run(once())


def test_a_newer_schema_that_works_with_this_release_is_taken(database_url: str, tmp_path: Path) -> None:
    newer.upgrade(database_url, tmp_path, works_with=migrations.head())
    assert check(database_url) == newer.NEWER


def test_a_newer_schema_that_works_with_a_release_before_this_one_is_taken(
    database_url: str, tmp_path: Path
) -> None:
    newer.upgrade(database_url, tmp_path, works_with=REVISIONS[0])
    assert check(database_url) == newer.NEWER


@pytest.mark.parametrize("said", [newer.NEWER, "8000", None], ids=["itself", "a revision between", "nothing"])
def test_a_newer_schema_that_does_not_say_so_is_refused(
    database_url: str, tmp_path: Path, said: str | None
) -> None:
    newer.upgrade(database_url, tmp_path, works_with=said)
    with pytest.raises(StartError, match=f"revision {newer.NEWER}, which is newer than this release knows"):
        check(database_url)


def test_a_comment_on_another_revision_does_not_count(database_url: str, tmp_path: Path) -> None:
    newer.upgrade(database_url, tmp_path, works_with=migrations.head())
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StartError, match="revision 9999"):
        check(database_url)


def test_a_downgrade_withdraws_the_compatibility(database_url: str, tmp_path: Path) -> None:
    newer.upgrade(database_url, tmp_path, works_with=migrations.head())
    newer.downgrade(database_url, tmp_path, migrations.head())

    async def ask() -> migrations.State:
        driver = await asyncpg.connect(database_url)
        try:
            return await migrations.state(driver)
        finally:
            await driver.close()

    own = getattr(SCRIPTS.get_revision(migrations.head()).module, "works_with", None)
    assert asyncio.run(ask()) == (migrations.head(), own)
    assert check(database_url) == migrations.head()


async def test_a_pairing_goes_as_always_on_a_newer_schema(database_url: str, tmp_path: Path) -> None:
    await asyncio.to_thread(newer.upgrade, database_url, tmp_path, migrations.head())
    node = Node(CONFIGURATION, database_url)
    [(_, port), *_] = await node.start(timers=False)
    site = Site(node, port)
    try:
        desktop, mobile = await site.pair()
        desktop.socket.send({"type": "channel_message", "payload": {"n": 1}})
        assert (await mobile.socket.expect("channel_message"))["payload"] == {"n": 1}
        assert (await site.get("/readyz")).status == 200
    finally:
        await ending(site, database_url)


def test_every_command_goes_as_always_on_a_newer_schema(
    database_url: str, postgres: str, tmp_path: Path
) -> None:
    newer.upgrade(database_url, tmp_path, works_with=migrations.head())
    operator = Operator(database_url, tmp_path)
    # What the unit runs before each start.
    event = json.loads(operator.run("migrate", "--before-start").err.splitlines()[-1])
    assert (event["message"], event["revision"]) == ("database migrated", newer.NEWER)
    assert operator.says("migrate") == (
        f"The database is at revision {newer.NEWER}, which is newer than this release's ({migrations.head()})"
        " and works with it.\n"
    )
    operator.run("user", "add", "alice", stdin=PASSWORD)
    assert operator.run("user", "list").out.startswith("alice\t")
    assert f"revision {newer.NEWER}" in operator.says("backup", "saved.tar")
    with tarfile.open(tmp_path / "saved.tar") as saved:
        assert b'"of_tomorrow"' in saved.extractfile("tables.json").read()  # type: ignore[union-attr]
    for other in fresh_database(postgres, "template0"):
        told = Operator(other, tmp_path).refuses("restore", "saved.tar")
        assert f"({newer.NEWER}) is newer than this release knows" in told


def test_an_embedded_database_of_a_newer_release_is_run_as_it_is(tmp_path: Path) -> None:
    """As root PostgreSQL runs as another user, who cannot pass through pytest's own folder."""
    place = Path(tempfile.mkdtemp(prefix="pairing-newer-", dir="/tmp"))
    environ = environment(DATA_DIR=str(place / "data"))
    try:
        added = command("user", "add", "alice", environ=environ, folder=place, stdin=PASSWORD)
        assert added.status == 0, added.text
        embedded = EmbeddedPostgres(place / "data")
        try:
            url = embedded.start()
            newer.upgrade(url, tmp_path, works_with=migrations.head())
            execute(url, "GRANT SELECT ON of_tomorrow TO pairing")
        finally:
            embedded.stop()
        listed = command("user", "list", environ=environ, folder=place)
        assert (listed.status, listed.out[:6]) == (0, "alice\t"), listed.text
        try:
            running = as_running(embedded.start())
            assert fetch(running, "SELECT current_user, count(*) FROM of_tomorrow") == [("pairing", 0)]
        finally:
            embedded.stop()
    finally:
        shutil.rmtree(place)


def test_the_rights_that_a_newer_release_gave_stay(database_url: str, tmp_path: Path) -> None:
    """An old server that starts again beside new ones takes nothing from them."""
    newer.upgrade(database_url, tmp_path, works_with=migrations.head())
    execute(database_url, "GRANT SELECT ON of_tomorrow TO pairing")
    running = as_running(database_url)
    Operator(running, tmp_path, MIGRATE_DATABASE_URL=database_url).says("migrate")
    assert fetch(running, "SELECT current_user, count(*) FROM of_tomorrow") == [("pairing", 0)]


async def test_doctor_reports_a_newer_schema_that_works(database_url: str, tmp_path: Path) -> None:
    await asyncio.to_thread(newer.upgrade, database_url, tmp_path, migrations.head())
    [finding] = await check_database(replace(CONFIGURATION, database_url=database_url))
    assert f"revision {newer.NEWER}" in finding.problem and "works with releases from" in finding.problem
    assert "install the newer release when you can" in finding.remedy


def test_every_migration_to_come_says_which_releases_work_with_it() -> None:
    before = 0
    for number, name in enumerate(REVISIONS):
        said = getattr(SCRIPTS.get_revision(name).module, "works_with", None)
        if name < FIRST_TO_SAY:
            assert said is None, "a migration that was released is never changed"
            continue
        assert said in REVISIONS[: number + 1], f"{name}: works_with must be an earlier revision or its own"
        assert REVISIONS.index(said) >= before, f"{name}: a release that stopped working does not work again"
        before = REVISIONS.index(said)

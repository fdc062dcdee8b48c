"""downgrade: back to the schema of an older release, as docs/operations.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tornado.ioloop import IOLoop

from harness.program import ROOT, program
from pairing_server.db import migrations
from tests.cli.commands import Operator, Result
from tests.cli.serving import serving
from tests.conftest import execute
from tests.db import newer
from tests.db.test_migrations import REVISIONS

BEFORE = REVISIONS[-2]


def documented() -> list[list[str]]:
    """The commands of each block under the heading "Going back"."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("### Going back\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.+?)```", section, re.S)
    return [[line.removeprefix("pairing-server ") for line in block.splitlines()] for block in blocks]


class Tomorrow:
    """The release of tomorrow, as `newer` has it, as a program: this one with a migration more."""

    def __init__(self, folder: Path, operator: Operator) -> None:
        shutil.copytree(ROOT / "pairing_server", folder / "pairing_server")
        newer.copy_migrations(folder / "migrations", works_with=None)
        self._environ = {**operator.environ, "PYTHONPATH": str(folder)}
        self._folder = operator.folder

    def run(self, *arguments: str) -> Result:
        done = subprocess.run(
            program(*arguments),
            env=self._environ,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def folder() -> Iterator[Path]:
    """As root PostgreSQL runs as another user, who cannot pass through pytest's own folder."""
    path = Path(tempfile.mkdtemp(prefix="pairing-going-back-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("embedded", [False, True], ids=["external", "embedded"])
def test_going_back_works_as_it_is_written(
    embedded: bool, request: pytest.FixtureRequest, tmp_path: Path, folder: Path
) -> None:
    url = "" if embedded else request.getfixturevalue("database_url")
    operator = Operator(url, folder, DATA_DIR=str(folder / "data"), PORT="0")
    tomorrow = Tomorrow(tmp_path, operator)
    with_newer, with_older = documented()
    tomorrow.run("migrate")
    refusal = operator.refuses("user", "list")
    [named] = re.findall(r"pairing-server downgrade (\S+)", refusal)
    for line in with_newer:
        tomorrow.run(*line.replace("REVISION", named).split())
    *before, serve = with_older
    for line in before:
        assert operator.run(*line.split()).status == 0
    assert serve == "serve"
    with serving(operator.environ, folder) as server:
        assert server.status("/readyz") == 200
        server.stop()


def test_a_revision_before_is_reached_and_asking_again_changes_nothing(
    database_url: str, tmp_path: Path
) -> None:
    operator = Operator(database_url, tmp_path)
    assert operator.says("downgrade", BEFORE) == f"The database is at revision {BEFORE}.\n"
    assert "already" in operator.says("downgrade", BEFORE)
    assert f"before {REVISIONS[-1]}. Run: pairing-server migrate" in operator.refuses(
        "downgrade", REVISIONS[-1]
    )


@pytest.mark.parametrize("revision", ["base", "head", "9999", "-1", "0007; DROP TABLE users", ""])
def test_what_is_no_revision_of_this_release_is_refused(
    database_url: str, tmp_path: Path, revision: str
) -> None:
    told = Operator(database_url, tmp_path).refuses("downgrade", "--", revision)
    assert "There is no revision" in told and REVISIONS[0] in told


def test_a_newer_database_is_taken_back_by_its_own_release(database_url: str, tmp_path: Path) -> None:
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    assert "the release that made it" in Operator(database_url, tmp_path).refuses("downgrade", BEFORE)


@pytest.mark.parametrize("name", ["pairing-server", "named in the URL"])
async def test_while_a_server_runs_nothing_is_taken_back(
    io_loop: IOLoop, database_url: str, tmp_path: Path, name: str
) -> None:
    server = await asyncpg.connect(database_url, server_settings={"application_name": name})
    try:
        own = "&application_name=named%20in%20the%20URL"
        operator = Operator(database_url + (own if "URL" in name else ""), tmp_path)
        told = await io_loop.run_in_executor(None, operator.refuses, "downgrade", BEFORE)
        assert "A server is using the database (1 connections). Stop it first." in told
    finally:
        await server.close()


async def test_a_server_of_another_role_is_seen_although_its_name_is_hidden(
    io_loop: IOLoop, database_url: str, tmp_path: Path
) -> None:
    owner = "owner_going_back"
    await io_loop.run_in_executor(
        None, execute, database_url, f"DROP ROLE IF EXISTS {owner}", f"CREATE ROLE {owner} LOGIN"
    )
    of_owner, running = (database_url.replace("//postgres@", f"//{role}@") for role in (owner, "pairing"))
    server = await asyncpg.connect(running, server_settings={"application_name": "pairing-server"})
    try:
        operator = Operator(running, tmp_path, MIGRATE_DATABASE_URL=of_owner)
        await io_loop.run_in_executor(
            None, execute, database_url, f"GRANT SELECT ON alembic_version TO {owner}"
        )
        told = await io_loop.run_in_executor(None, operator.refuses, "downgrade", BEFORE)
        assert "A server is using the database" in told
    finally:
        await server.close()
        await io_loop.run_in_executor(
            None, execute, database_url, f"DROP OWNED BY {owner}", f"DROP ROLE {owner}"
        )


def test_the_wheel_has_the_migrations_where_the_document_says() -> None:
    assert 'migrations = "pairing_server/migrations"' in (ROOT / "pyproject.toml").read_text()
    assert migrations.known(BEFORE)

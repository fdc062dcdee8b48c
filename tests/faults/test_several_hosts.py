"""A primary and a standby, both in the URL: every command finds the one that takes writes, before and after a failover."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.postgres import Postgres, await_replication, primary_and_standby
from pairing_server.db import migrations
from tests.cli.commands import Operator
from tests.cli.serving import serving
from tests.conftest import execute

PASSWORD = "a long enough password"


@dataclass
class Place:
    primary: Postgres
    standby: Postgres
    operator: Operator


@pytest.fixture
def place(postgres: str, tmp_path: Path) -> Iterator[Place]:
    """The standby is the first host of the URL: a command that takes the first host that answers cannot write."""
    folder = Path(tempfile.mkdtemp(prefix="pairing-hosts-", dir="/tmp"))
    with primary_and_standby(folder) as (primary, standby):
        execute(
            primary.url(),
            "CREATE ROLE owner LOGIN",
            "CREATE ROLE pairing LOGIN",
            "CREATE DATABASE pairing OWNER owner",
        )
        where = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}/pairing"
        operator = Operator(
            f"postgresql://pairing@{where}?target_session_attrs=read-write",
            tmp_path,
            MIGRATE_DATABASE_URL=f"postgresql://owner@{where}",
            REGISTRATION="open",
            PORT="0",
        )
        yield Place(primary, standby, operator)


def test_every_command_works_with_several_hosts_before_and_after_a_failover(place: Place) -> None:
    operator = place.operator
    assert operator.says("migrate") == f"The database is at revision {migrations.head()}.\n"
    operator.says("user", "add", "alice", stdin=PASSWORD)
    assert operator.says("backup", "saved.tar").startswith("Saved the database at revision")
    operator.says("user", "add", "bob", stdin=PASSWORD)
    standby = Operator(
        f"postgresql://pairing@127.0.0.1:{place.standby.port}/pairing?target_session_attrs=any",
        operator.folder,
    )
    with asyncio.Runner() as runner:
        runner.run(await_replication(place.primary))
    assert standby.says("backup", "from-the-standby.tar").startswith("Saved the database at revision")
    assert "read-only" in standby.refuses("restore", "--replace", "saved.tar")

    with asyncio.Runner() as runner:
        runner.run(await_replication(place.primary))
    place.primary.stop("immediate")
    assert "of the hosts" in operator.refuses("migrate")
    place.standby.promote()

    assert operator.says("migrate") == f"The database is at revision {migrations.head()}.\n"
    assert {line.split("\t")[0] for line in operator.says("user", "list").splitlines()} == {"alice", "bob"}
    assert "epoch 2" in operator.says("restore", "--replace", "saved.tar")
    assert "epoch 3" in operator.says("audit", "rebase")
    assert operator.says("user", "list").startswith("alice\t")
    operator.says("backup", "again.tar")
    with serving(operator.environ, operator.folder) as server:
        told = operator.says("status")
        assert "database     up" in told
        examined = Operator(
            operator.environ["PAIRING_DATABASE_URL"], operator.folder, PUBLIC_URL=server.url, PORT="0"
        ).run("doctor")
        assert (examined.status, examined.err) == (0, "")
        assert "The database cannot be used" not in examined.out
        assert f"The database's host 127.0.0.1:{place.primary.port} cannot be reached" in examined.out
        server.stop()


def test_doctor_names_a_host_that_is_away_and_says_when_none_takes_writes(place: Place) -> None:
    place.operator.says("migrate")
    doctor = Operator(
        place.operator.environ["PAIRING_DATABASE_URL"], place.operator.folder, PUBLIC_URL="http://127.0.0.1:1"
    )
    assert "The database" not in doctor.run("doctor").out
    place.standby.stop()
    told = doctor.run("doctor").out
    assert f"The database's host 127.0.0.1:{place.standby.port} cannot be reached" in told
    assert f":{place.primary.port} cannot be reached" not in told
    place.standby.start()
    place.primary.stop("immediate")
    told = doctor.run("doctor").out
    assert "The database cannot be used: The database is read-only." in told

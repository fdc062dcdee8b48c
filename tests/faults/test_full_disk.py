"""A disk without room: that of the tables, while PostgreSQL itself goes on; that of the data directory, with the database elsewhere."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness.program import environment
from pairing_server.cli.doctor.checks import check_database
from pairing_server.config import Configuration
from pairing_server.db.embedded.access import SYSTEM_USER
from tests.cli.serving import serving
from tests.conftest import as_running, execute
from tests.devices import Site
from tests.faults.sites import ready


@contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of its own with little room, mounted there."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=2000,mode=0755", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes root, and the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    """Leave no room, not even for an empty file."""
    place.mkdir()
    with suppress(OSError), (place / "bytes").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    with suppress(OSError):
        for number in range(10_000):
            (place / str(number)).touch()


@pytest.fixture
def small_disk(postgres: str) -> Iterator[Path]:
    """A disk of its own for tables, beside PostgreSQL's."""
    folder = Path(postgres.partition("?host=")[2]).parent / "small"
    with disk(folder, "48m") as place:
        account = pwd.getpwnam(SYSTEM_USER)
        os.chown(place, account.pw_uid, account.pw_gid)
        yield place


@pytest.fixture
def database_url(postgres: str, small_disk: Path) -> Iterator[str]:
    """A migrated database whose tables are on the small disk; the write-ahead log is elsewhere."""
    admin = postgres.replace("/pairing?", "/postgres?")
    (small_disk / "tables").mkdir()
    account = pwd.getpwnam(SYSTEM_USER)
    os.chown(small_disk / "tables", account.pw_uid, account.pw_gid)
    execute(admin, f"CREATE TABLESPACE small LOCATION '{small_disk}/tables'")
    execute(admin, "CREATE DATABASE on_small_disk TEMPLATE pairing TABLESPACE small STRATEGY file_copy")
    yield postgres.replace("/pairing?", "/on_small_disk?")
    execute(admin, "DROP DATABASE on_small_disk WITH (FORCE)", "DROP TABLESPACE small")


async def test_a_server_whose_tables_have_no_room_is_not_ready_until_they_have(
    site: Site, small_disk: Path, database_url: str
) -> None:
    changes: list[str] = []
    account = await site.account()
    site.node.database._on_outage = lambda change, *_: changes.append(change)
    site.node.database.breaker._on_outage = lambda change, *_: changes.append(change)
    site.node.database._wrote_at = float("-inf")
    filling = small_disk / "filling"
    fill(filling)
    try:
        # An idle server, which only its health check asks.
        for _ in range(3):
            answer = await site.get("/readyz")
            assert (answer.status, answer.body["details"]) == (503, {"reasons": ["database_disk_full"]})
        [finding] = await check_database(Configuration(database_url=as_running(database_url)))
        assert "The database's disk is full" in finding.problem
        assert finding.remedy == "Free some space on its disk."
        for _ in range(3):
            with pytest.raises(Exception, match="disk is full"):
                await site.node.database._probe()
        assert changes == ["down"], "no probe that reads ends the outage"
        assert (await site.get("/healthz")).status == 200
    finally:
        shutil.rmtree(filling)
    await ready(site)
    assert changes == ["down", "up"]
    await site.pair(account)


def test_a_server_whose_data_directory_is_full_stops_without_a_traceback_and_leaves_no_stray_file(
    tmp_path: Path, shared_url: str
) -> None:
    with disk(tmp_path / "data", "256k") as data:
        environ = environment(PORT="0", DATA_DIR="data", DATABASE_URL=shared_url, REGISTRATION="open")
        with serving(environ, tmp_path) as server:
            before = {path.name for path in data.iterdir()}
            fill(data / "filling")
            assert server.status("/readyz") == 200
            # What is recorded is sealed at the stop.
            said = server.stop()
        assert "Traceback" not in said
        assert "audit seal not remembered" in said, said
        assert {path.name for path in data.iterdir()} <= {*before, "filling"}


@pytest.fixture
def shared_url(postgres: str) -> Iterator[str]:
    admin = postgres.replace("/pairing?", "/postgres?")
    execute(admin, "CREATE DATABASE elsewhere TEMPLATE pairing STRATEGY file_copy")
    yield as_running(postgres.replace("/pairing?", "/elsewhere?"))
    execute(admin, "DROP DATABASE elsewhere WITH (FORCE)")

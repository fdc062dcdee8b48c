"""The server of an endurance run, and its count of the objects, tasks, timers and files that it holds."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass

from endure.run import Run
from harness.pairing_database import PairingDatabase
from harness.processes import free_port
from harness.program import environment

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`memory`: blocks of Python's allocator, and bytes of malloc's. `types`: objects by type."""

    counts: dict[str, int]
    memory: dict[str, int]
    types: dict[str, int]


class Server:
    """A pairing server on the database, which writes a snapshot of what it holds at SIGUSR2."""

    def __init__(
        self, run: Run, database: PairingDatabase, *, open_files: int | None = None, **settings: str
    ) -> None:
        """`open_files`: how many it may have open, at most."""
        self.port = free_port()
        self._answer = run.folder / "snapshot.json"
        given = {f"PAIRING_{name}": value for name, value in settings.items()}
        environ = {**environment(PORT=str(self.port)), **database.settings, **given}
        command = [sys.executable, "-m", "endure.inspected", str(self._answer), "serve"]
        if open_files is not None:
            command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
        self.process = run.processes.start("server", command, run.server_core, environ)
        run.processes.await_port("server", self.process, self.port)

    @property
    def pid(self) -> int:
        return self.process.pid

    def snapshot(self) -> Snapshot:
        """What the server holds now. Blocks."""
        self._answer.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self._answer.exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the server does not answer SIGUSR2")
            time.sleep(0.02)
        return Snapshot(**json.loads(self._answer.read_text()))

"""The server of a long run: started, looked into, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench.ours import RAISED, Site
from bench.processes import free_port

PATIENCE = 60.0


class Watched:
    """A pairing server on the database of the site, that says what it holds."""

    def __init__(self, site: Site, folder: Path, core: int, **settings: str) -> None:
        self.port = free_port()
        self._answer = folder / "told.json"
        inherited = {name: "" for name in os.environ if name.startswith("PAIRING_")}
        environment: Mapping[str, str] = {
            **inherited,
            **RAISED,
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
            "PAIRING_PORT": str(self.port),
            "PAIRING_DATABASE_URL": site.url,
            "PAIRING_JWT_KEYS": site.keys,
            **{f"PAIRING_{name}": value for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "bench.watched", str(self._answer), "serve"]
        self.process = site.processes.start("watched", command, core, environment)
        site.processes.await_port("watched", self.process, self.port)

    @property
    def pid(self) -> int:
        return self.process.pid

    def holds(self) -> dict[str, int]:
        """What it has of objects, tasks, timers and files just now."""
        self._answer.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE
        while not self._answer.exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the server does not tell what it holds")
            time.sleep(0.02)
        found: dict[str, int] = json.loads(self._answer.read_text())
        return found

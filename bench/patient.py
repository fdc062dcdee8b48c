"""The server of a long run: started, looked into, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.ours import RAISED, Site
from bench.processes import free_port

PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Held:
    """What the server has just now. `memory`: blocks of Python's, and bytes of malloc's; `kinds`: objects by type."""

    counts: dict[str, int]
    memory: dict[str, int]
    kinds: dict[str, int]


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
        """How many objects, tasks, timers and files it has just now."""
        return self.look().counts

    def look(self) -> Held:
        """All that it tells of itself."""
        self._answer.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE
        while not self._answer.exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the server does not tell what it holds")
            time.sleep(0.02)
        found = json.loads(self._answer.read_text())
        return Held(found["held"], found["memory"], found["kinds"])

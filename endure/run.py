"""What every endurance run needs: a folder, processes, a core for the server, and where to print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.processes import Processes


@dataclass(frozen=True, slots=True)
class Run:
    """`say`: prints a line."""

    folder: Path
    processes: Processes
    server_core: int
    say: Callable[[str], None]

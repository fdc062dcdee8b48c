"""The real program as a process: its command line, and an environment without the settings of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(**settings: str) -> dict[str, str]:
    """An environment with these settings only: HOST="…" is PAIRING_HOST."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
    inherited = {name: os.environ[name] for name in kept if name in os.environ}
    return {
        "PYTHONPATH": str(ROOT),
        **inherited,
        **{f"PAIRING_{name}": value for name, value in settings.items()},
    }


def program(*arguments: str) -> list[str]:
    """The command line that starts the real program."""
    return [sys.executable, "-m", "pairing_server", *arguments]

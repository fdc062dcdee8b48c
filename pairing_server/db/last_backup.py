"""When the database was last saved by `pairing-server backup`: kept in the data directory, for metrics and `status`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

NAME = "last-backup"


def note(folder: Path, now: datetime) -> None:
    """Raises OSError."""
    (folder / NAME).write_text(now.isoformat() + "\n", encoding="ascii")


def read(folder: Path) -> datetime | None:
    """None if none is known."""
    try:
        return datetime.fromisoformat((folder / NAME).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None

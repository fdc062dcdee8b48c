"""Who seals the audit log: the key, what this machine remembers of the seals, and where copies of them go.

Sealing itself is in audit/seals/sealing.py.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

from pairing_server.audit.seals import Seal, SealFormatError, SealKey, seal_from_line

# Takes a seal's line outside. Raises OSError.
Copy = Callable[[str], Awaitable[None]]


@dataclass
class Sealer:
    """Who seals: with which key, what this machine remembers, and where copies go.

    `folder`: where the newest seal is remembered, so that it cannot be taken away unnoticed; None: nowhere.
    """

    key: SealKey
    node: str
    folder: Path | None = None
    copy: Copy | None = None
    trusted: frozenset[bytes] = field(default_factory=frozenset)

    def remembered(self) -> Seal | None:
        """The newest seal that this machine has seen. Raises SealFormatError."""
        if self.folder is None or not (self.folder / "audit-last-seal").exists():
            return None
        return _read_line((self.folder / "audit-last-seal").read_text(encoding="utf-8"))

    def remember(self, seal: Seal) -> None:
        if self.folder is not None and self.folder.is_dir():
            _replace(self.folder / "audit-last-seal", seal.line + "\n")

    def copied(self) -> int:
        """The number of the last seal that was copied from this machine; 0: none."""
        if self.folder is None:
            return 0
        try:
            return int((self.folder / "audit-copied-seal").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def note_copied(self, number: int) -> None:
        if self.folder is not None and self.folder.is_dir():
            _replace(self.folder / "audit-copied-seal", f"{number}\n")

    def go_back(self, newest: Seal | None, copied: int) -> None:
        """The log ends with that seal now, as after a restore: later ones are not missed, and those after the seal
        of the number `copied` are copied again."""
        if newest is not None:
            self.remember(newest)
        elif self.folder is not None:
            (self.folder / "audit-last-seal").unlink(missing_ok=True)
        if self.copied() > copied:
            self.note_copied(copied)


def _read_line(text: str) -> Seal:
    try:
        return seal_from_line(json.loads(text))
    except (ValueError, AttributeError) as error:
        raise SealFormatError(f"no seal: {error}") from None


def _replace(path: Path, text: str) -> None:
    """The file has either the old text or the new one, whatever happens."""
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as fresh:
        fresh.write(text)
        fresh.flush()
        os.fsync(fresh.fileno())
    Path(fresh.name).replace(path)


def to_file(path: Path) -> Copy:
    """Copies seals to a file, one a line."""

    def append(line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    async def copy(line: str) -> None:
        await asyncio.to_thread(append, line)

    return copy


def read_copies(path: Path) -> dict[int, str]:
    """The digests of the seals in a file of copies, by number. Raises OSError, SealFormatError."""
    copies = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                seal = _read_line(line)
                copies[seal.number] = seal.digest.hex()
    return copies

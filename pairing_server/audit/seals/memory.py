"""What a machine remembers of the seals, in files of its own: the newest one, and which were copied outside.

Only `go_back` removes a seal: one that the database lacks now, or has changed, stays in the files.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from pairing_server.audit.seals import Seal, SealFormatError, seal_from_line

log = logging.getLogger(__name__)


class SealMemory:
    """In `folder`; None: nothing is remembered. The newest seal is kept so that its removal is noticed.

    What cannot be written, as on a full disk, is logged; the seals are in the database.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._newest = None if folder is None else folder / "audit-last-seal"
        self._lost = None if folder is None else folder / "audit-lost-seals"
        self._copied = None if folder is None else folder / "audit-copied-seal"

    def newest(self) -> Seal | None:
        """The newest seal that this machine has seen. Raises SealFormatError."""
        if self._newest is None or not self._newest.exists():
            return None
        return _seal_of(self._newest.read_text(encoding="utf-8"))

    def lost(self) -> list[Seal]:
        """Seals that the database had, and then had no more, or had changed. Raises SealFormatError."""
        if self._lost is None or not self._lost.exists():
            return []
        lines = self._lost.read_text(encoding="utf-8").splitlines()
        return [_seal_of(line) for line in lines]

    def known(self) -> dict[int, str]:
        """The digests of the seals that are remembered, by number. Raises SealFormatError."""
        newest = self.newest()
        seals = [*([newest] if newest is not None else []), *self.lost()]
        return {seal.number: seal.digest.hex() for seal in seals}

    def remember(self, seal: Seal) -> None:
        """It is the newest."""
        _or_log(lambda: _replace(self._newest, seal.line + "\n"))

    def miss(self, seal: Seal) -> None:
        """The database lacks this seal now. Raises SealFormatError."""
        text = "".join(f"{each.line}\n" for each in (*self.lost(), seal))
        _or_log(lambda: _replace(self._lost, text))

    def copied(self) -> int:
        """The number of the last seal that was copied from this machine; 0: none."""
        try:
            return int(self._copied.read_text(encoding="utf-8")) if self._copied is not None else 0
        except (OSError, ValueError):
            return 0

    def note_copied(self, number: int) -> None:
        _or_log(lambda: _replace(self._copied, f"{number}\n"))

    def go_back(self, newest: Seal | None, copied: int) -> None:
        """The log ends with that seal now, as after a restore: later ones are not missed, and those after the seal
        of the number `copied` are copied again."""
        if newest is not None:
            self.remember(newest)
        elif self._newest is not None:
            self._newest.unlink(missing_ok=True)
        if self._lost is not None:
            self._lost.unlink(missing_ok=True)
        if self.copied() > copied:
            self.note_copied(copied)


def read_copies(path: Path) -> dict[int, str]:
    """The digests of the seals in a file of copies, by number. Raises OSError, SealFormatError."""
    with path.open(encoding="utf-8") as file:
        try:
            seals = [_seal_of(line) for line in file if line.endswith("\n")]
        except UnicodeDecodeError:
            raise SealFormatError(f"{path} is no file of copies: it is not text in UTF-8") from None
    return {seal.number: seal.digest.hex() for seal in seals}


def _seal_of(text: str) -> Seal:
    try:
        return seal_from_line(json.loads(text))
    except (ValueError, AttributeError, RecursionError) as error:
        raise SealFormatError(f"no seal: {error}") from None


def _or_log(act: Callable[[], None]) -> None:
    try:
        act()
    except OSError as error:
        log.error("audit seal not remembered", extra={"error": str(error)})


def _replace(path: Path | None, text: str) -> None:
    """The file has either the old text or the new one, even after a crash. Raises OSError, and leaves no other file."""
    if path is None or not path.parent.is_dir():
        return
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as fresh:
        try:
            fresh.write(text)
            fresh.flush()
            os.fsync(fresh.fileno())
            Path(fresh.name).replace(path)
        except OSError:
            Path(fresh.name).unlink(missing_ok=True)
            raise

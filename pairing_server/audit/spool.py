"""Audit events on disk until they are in the database: lines of JSON, in files of this process and of dead processes.

An event that waits in memory is here as well, so that a process that is killed loses none. Lines are written without
waiting for the disk; `sync` waits for it. The content of a line: store/audit_events.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

CAP_BYTES = 256 * 1024 * 1024
# The last eighth is reserved for lines that are `needed`: events that are more severe than info.
RESERVED_SHARE = 8
_NEW, _STARTED = ".jsonl", ".replay"


@dataclass
class Segment:
    """A file of lines that is complete. `since`: when writing its lines to the database began, in Unix seconds."""

    path: Path
    file: int
    since: int
    size: int

    def read(self, offset: int, most: int) -> tuple[list[bytes], int]:
        """At most so many lines from `offset` on, and the offset of the next. An incomplete last line is left out."""
        lines: list[bytes] = []
        with os.fdopen(os.dup(self.file), "rb") as file:
            file.seek(offset)
            while len(lines) < most and (line := file.readline()).endswith(b"\n"):
                lines.append(line[:-1])
                offset += len(line)
        return lines, offset


class Spool:
    """The files in `folder`. Each is locked by the process that writes it; the lock of a dead process is free."""

    def __init__(self, folder: Path, cap: int = CAP_BYTES) -> None:
        self.folder = folder
        self._cap = cap
        self._file: int | None = None
        self._path = folder / "none"
        self._size = 0
        self._made = 0
        self._old: deque[Segment] = deque()
        self.failure: OSError | None = None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._size + sum(segment.size for segment in self._old)

    def open(self, now: float) -> None:
        """Take over the files of dead processes. Raises OSError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (_NEW, _STARTED) and (segment := _taken(path, now)) is not None:
                self._old.append(segment)

    def append(self, line: bytes, *, needed: bool) -> bool:
        """Write one line. False if there is no room, or if the disk refuses it: `failure` says why."""
        size = len(line) + 1
        room = self._cap if needed else self._cap - self._cap // RESERVED_SHARE
        if self.size + size > room:
            return False
        try:
            if self._file is None:
                self._begin()
            _write(self._file or 0, line + b"\n", self._size)
        except OSError as error:
            self.failure = error
            return False
        self.failure = None
        self._size += size
        return True

    def _begin(self) -> None:
        self._made += 1
        self._path = self.folder / f"{os.getpid()}-{id(self):x}-{self._made:06d}{_NEW}"
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file, self._size = file, 0

    def clear(self) -> None:
        """Everything that this process has written is in the database. Raises OSError."""
        if self._file is not None and self._size:
            os.ftruncate(self._file, 0)
            self._size = 0

    def turn(self, now: float) -> None:
        """Complete the file; the next line goes to another one."""
        if self._file is not None and self._size:
            self._old.append(_started(Segment(self._path, self._file, 0, self._size), now))
            self._file, self._size = None, 0

    def oldest(self) -> Segment | None:
        """The segment that is to be written to the database first."""
        return self._old[0] if self._old else None

    def drop(self, segment: Segment) -> None:
        """All its lines are in the database."""
        self._old.remove(segment)
        segment.path.unlink(missing_ok=True)
        os.close(segment.file)

    def sync(self) -> None:
        """Wait until the lines are on the disk. Raises OSError."""
        if self._file is not None:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Close the files; lines that are not in the database stay for the next start."""
        for segment in self._old:
            os.close(segment.file)
        self._old.clear()
        if self._file is not None:
            if not self._size:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file, self._size = None, 0


def _write(file: int, data: bytes, end: int) -> None:
    """All of it or nothing. Raises OSError."""
    try:
        written = os.write(file, data)
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, end)
        raise


def _taken(path: Path, now: float) -> Segment | None:
    """The file, if no process has it. An empty one is removed."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    size = os.fstat(file).st_size
    if size == 0:
        path.unlink(missing_ok=True)
        os.close(file)
        return None
    return _started(Segment(path, file, 0, size), now)


def _started(segment: Segment, now: float) -> Segment:
    """Its name says since when its lines may be in the database, for the next process if this one is killed."""
    if segment.path.suffix == _STARTED:
        segment.since = int(segment.path.stem.rpartition(".")[2])
        return segment
    segment.since = int(now)
    renamed = segment.path.with_name(f"{segment.path.stem}.{segment.since}{_STARTED}")
    segment.path.rename(renamed)
    segment.path = renamed
    return segment

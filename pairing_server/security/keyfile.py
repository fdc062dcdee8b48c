"""The file of signing keys in the data directory: made once, rewritten whole, read by every server that shares it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pairing_server.security.keys import SigningKey, format_keys, generate_key, parse_keys

NAME = "jwt-keys"


def make_once(path: Path, make: Callable[[], str]) -> None:
    """Put a secret line into the file, unless something is in it.

    Of several that start at once one makes it, and the others wait for that.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not file.read():
            os.fchmod(file.fileno(), 0o600)
            file.write(make() + "\n")


def check_private(path: Path, found: os.stat_result) -> None:
    """Raises ValueError if others can read the file."""
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ValueError(f"it can be read by others; run: chmod 600 {path}")


class KeyFile:
    """`path` is the file. Everything raises OSError or ValueError, whose text holds no secret."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> tuple[SigningKey, ...]:
        """The keys in it, made if there are none yet."""
        if not self.path.exists() or not self.path.stat().st_size:
            self._make()
        return self.load()

    def load(self) -> tuple[SigningKey, ...]:
        """The keys in it."""
        found = self.path.stat()
        # Before the content is read, and whatever is wrong with it: it is looked at again when it changes.
        self._seen = _state(found)
        check_private(self.path, found)
        return parse_keys(self.path.read_text(encoding="utf-8").strip())

    def changed(self) -> bool:
        """Whether it is another file, or another content, than what was read last. Not if it is gone."""
        try:
            return _state(self.path.stat()) != self._seen
        except FileNotFoundError:
            return False

    def rewrite(self, change: Callable[[tuple[SigningKey, ...]], Sequence[SigningKey]]) -> None:
        """Put what `change` makes of the keys in their place: whole, or not at all. One at a time."""
        with self._alone():
            keys = format_keys(change(self.load())) + "\n"
            before = self.path.stat()
            fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                # The server may be another user than whoever gives the command.
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                file.write(keys)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _make(self) -> None:
        make_once(self.path, lambda: format_keys([generate_key()]))


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_mtime_ns, found.st_size

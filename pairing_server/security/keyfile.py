"""The file of signing keys in the data directory: made once, replaced atomically, read by every server that shares it."""

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
    """Write a secret line into the file if it is empty or missing.

    Of several processes that start at once, one writes it and the others wait.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not file.read():
            os.fchmod(file.fileno(), 0o600)
            file.write(make() + "\n")


def check_private(path: Path, found: os.stat_result, *, group: bool = False) -> None:
    """Raises ValueError if others can read the file; a `group` may where the configuration says so."""
    mode = stat.S_IMODE(found.st_mode)
    if not mode & (0o007 if group else 0o077):
        return
    advice = (
        "" if mode & 0o007 else ", or set PAIRING_DATA_DIR_GROUP=true for a volume with Kubernetes' fsGroup"
    )
    raise ValueError(f"it can be read by others; run: chmod 600 {path}{advice}")


class KeyFile:
    """The methods raise OSError or ValueError, whose text has no secret."""

    def __init__(self, path: Path, *, group: bool = False) -> None:
        """`group`: whether a group may read and write it."""
        self.path = path
        self._group = group
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> tuple[SigningKey, ...]:
        """The keys; a first one is made if there is none."""
        if not self.path.exists() or not self.path.stat().st_size:
            self._make()
        return self.load()

    def load(self) -> tuple[SigningKey, ...]:
        """The keys."""
        found = self.path.stat()
        # Noted before the content is read: a file with a fault is read again when it changes.
        self._seen = _state(found)
        check_private(self.path, found, group=self._group)
        return parse_keys(self.path.read_text(encoding="utf-8").strip())

    def changed(self) -> bool:
        """Whether the file has changed since it was loaded; False if it is gone."""
        try:
            return _state(self.path.stat()) != self._seen
        except FileNotFoundError:
            return False

    def rewrite(self, change: Callable[[tuple[SigningKey, ...]], Sequence[SigningKey]]) -> None:
        """Replace the keys by what `change` makes of them, atomically. Only one process does so at a time."""
        with self._locked():
            keys = format_keys(change(self.load())) + "\n"
            before = self.path.stat()
            fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                # The command may run as another user than the server.
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                file.write(keys)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
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

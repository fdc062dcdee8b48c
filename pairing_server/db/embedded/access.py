"""What the embedded PostgreSQL's system user may reach: its account, its folders, its socket.

PostgreSQL refuses to run as root, so a server that runs as root lends it an account of its own. Here
are that account, the rights it needs on the way to its files, and the private folder of its socket.
Starting and stopping PostgreSQL is in `db/embedded/postgres.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYSTEM_USER = "pairing-postgres"
SOCKET_NAME = ".s.PGSQL.5432"
# sun_path holds 108 bytes on Linux and 104 elsewhere, the closing NUL included.
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
# A list of hosts is split at commas, host and port at colons; the others need quoting somewhere.
AWKWARD_CHARACTERS = frozenset(",:\"'\\@")
_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OF_A_GROUP = "On a volume with Kubernetes' fsGroup set PAIRING_DATA_DIR_GROUP=true."


class EmbeddedPostgresError(RuntimeError):
    """The embedded database cannot run; the text is for the operator and says what to do."""


@dataclass(frozen=True)
class Account:
    """The system user that runs PostgreSQL; `is_other` if it is not the one that runs us."""

    uid: int
    gid: int
    is_other: bool

    def may(self, status: os.stat_result, rights: int) -> bool:
        """Whether this account has all of `rights` (4 read, 2 write, 1 execute) by the mode bits."""
        return (status.st_mode >> self._shift(status)) & rights == rights

    def granting(self, status: os.stat_result, rights: int) -> int:
        """The mode of `status` with `rights` added for this account."""
        return stat.S_IMODE(status.st_mode) | rights << self._shift(status)

    def _shift(self, status: os.stat_result) -> int:
        if status.st_uid == self.uid:
            return 6
        return 3 if status.st_gid == self.gid else 0


def account_for(cluster: Path) -> Account:
    """The account that runs PostgreSQL on `cluster`: its owner if it exists, else our own.

    Root gets the system user `pairing-postgres`, which is made when it is needed for the first time.
    Raises EmbeddedPostgresError if the cluster's owner cannot run it.
    """
    owner = cluster.stat() if cluster.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise EmbeddedPostgresError(
                f"The database in {cluster} belongs to the system user {_user_name(owner.st_uid)}, but the"
                f" server runs as {_user_name(os.geteuid())}. Start it as the user that made the database,"
                " or set PAIRING_DATA_DIR to another folder."
            )
        return Account(os.geteuid(), os.getegid(), is_other=False)
    if owner is None:
        entry = _system_user()
        return Account(entry.pw_uid, entry.pw_gid, is_other=True)
    if owner.st_uid == 0:
        raise EmbeddedPostgresError(
            f"The database in {cluster} belongs to root, as whom PostgreSQL refuses to run. Give it to"
            f" the system user that made it: chown -R {SYSTEM_USER}: '{cluster}'"
        )
    return Account(owner.st_uid, owner.st_gid, is_other=True)


def prepare_data_dir(data_dir: Path, *, group: bool = False) -> None:
    """Make sure that `data_dir` exists and that only its owner, and with `group` its group, can list it or write to it.

    A folder that others can list is closed only if all in it is private already: then it is the server's,
    and not a place like /var/lib that was named by mistake. Raises EmbeddedPostgresError.
    """
    if "\n" in str(data_dir):
        raise EmbeddedPostgresError(
            "PAIRING_DATA_DIR has a line break in it, which PostgreSQL does not take."
        )
    try:
        data_dir.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        status = data_dir.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise EmbeddedPostgresError(
                f"PAIRING_DATA_DIR is {data_dir}, which is a file. Name a folder."
            ) from None
        is_anyones = bool(status.st_mode & stat.S_IWOTH)
        refused = stat.S_IRWXO if group else _GROUP_AND_OTHERS
        may_list = status.st_mode & 0o066 & refused
        if not is_anyones and (not may_list or os.geteuid() not in (0, status.st_uid)):
            return
        if is_anyones or any(path.lstat().st_mode & refused for path in data_dir.iterdir()):
            raise EmbeddedPostgresError(
                f"PAIRING_DATA_DIR is {data_dir}, which other users can list or change. Name a folder for"
                f" this server alone, for example a new one in it, or make this one private: chmod go-rwx '{data_dir}'."
                f" {_OF_A_GROUP}"
            ) from None
        data_dir.chmod(stat.S_IMODE(status.st_mode) & ~refused)


def close_cluster(cluster: Path, *, group: bool = False) -> None:
    """Take from a group what PostgreSQL refuses to start with, if there may be such a `group`. Raises EmbeddedPostgresError."""
    mode = stat.S_IMODE(cluster.stat().st_mode) if cluster.exists() else 0
    if not mode & (stat.S_IWGRP | stat.S_IRWXO):
        return
    if mode & stat.S_IRWXO or not group:
        raise EmbeddedPostgresError(
            f"The database in {cluster} can be changed by other users, so PostgreSQL refuses it: chmod 700 '{cluster}'."
            f" {_OF_A_GROUP}"
        )
    cluster.chmod(mode & ~_GROUP_AND_OTHERS)


def open_the_way(target: Path, account: Account) -> list[Path]:
    """Let `account` pass through every folder above `target`; the list of folders that were changed.

    Only the right to pass through is added (x), never the right to list (r).
    """
    changed = []
    for folder in target.parents:
        status = folder.stat()
        if not account.may(status, 0o1):
            folder.chmod(account.granting(status, 0o1))
            changed.append(folder)
    return changed


def make_readable(root: Path, account: Account) -> list[Path]:
    """Let `account` read all files below `root` and run its programs; the list of paths that were changed."""
    changed = []
    for path in _tree(root):
        status = path.lstat()
        runs = stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IXUSR
        rights = 0o5 if runs else 0o4
        if not stat.S_ISLNK(status.st_mode) and not account.may(status, rights):
            path.chmod(account.granting(status, rights))
            changed.append(path)
    return changed


def socket_directory(cluster: Path, account: Account) -> Path:
    """A folder for the socket that only `account` (and root) can enter: the cluster itself if its path fits.

    A path that is too long for a socket, or that has characters with a meaning in connection strings,
    gets a private folder among the system's run-time or temporary files.
    """
    if _fits_a_socket(cluster):
        return cluster
    identity = os.fsencode(cluster) + b"\0" + str(cluster.stat().st_ino).encode()
    name = "pairing-" + hashlib.sha256(identity).hexdigest()[:16]
    for base in _run_time_folders(account):
        try:
            if _fits_a_socket(base / f"{name}-12345678") and _all_may_pass(base, account):
                return _private_directory(base, name, account)
        except OSError:  # Missing, full or read-only: the next one may do.
            continue
    raise EmbeddedPostgresError(
        f"The path {cluster} is too long for a socket, and no private folder for it could be made"
        f" elsewhere. Set PAIRING_DATA_DIR to a shorter path, or TMPDIR to a writable folder."
    )


def _private_directory(base: Path, name: str, account: Account) -> Path:
    """A real folder in `base` that belongs to `account` alone: `name`, or one like it if that is taken.

    `base` may be open to all, so that another user may have taken the name.
    """
    path = base / name
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid
        if is_ours and not found.st_mode & _GROUP_AND_OTHERS:
            return path
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
    if account.is_other:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return path


def _run_time_folders(account: Account) -> Iterator[Path]:
    run_time = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if run_time.is_absolute() and run_time.is_dir():
        status = run_time.stat()
        if status.st_uid == account.uid and not status.st_mode & _GROUP_AND_OTHERS:
            yield run_time.resolve()
    yield Path(tempfile.gettempdir()).resolve()
    yield Path("/tmp").resolve()  # noqa: S108 (only a private folder in it is used)


def _all_may_pass(folder: Path, account: Account) -> bool:
    return all(account.may(step.stat(), 0o1) for step in (folder, *folder.parents))


def _fits_a_socket(folder: Path) -> bool:
    text = str(folder)
    is_plain = text.isprintable() and AWKWARD_CHARACTERS.isdisjoint(text)
    return is_plain and len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_BYTES


def _tree(root: Path) -> Iterator[Path]:
    yield root
    for folder, subfolders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*subfolders, *files))


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _system_user() -> pwd.struct_passwd:
    """The account `pairing-postgres`, made if it is missing."""
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    # Two servers may start at once on a new machine; useradd fails when another one runs.
    with Path("/run", f"{SYSTEM_USER}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _make_system_user()


def _make_system_user() -> pwd.struct_passwd:
    search = os.pathsep.join(("/usr/sbin", "/sbin", os.environ.get("PATH", os.defpath)))
    useradd = shutil.which("useradd", path=search) or "useradd"
    nologin = shutil.which("nologin", path=search) or "/bin/false"
    command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    try:
        made = subprocess.run(  # noqa: S603 (no part of it comes from outside)
            [*command, "--shell", nologin, SYSTEM_USER],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        reason = made.stderr.strip()
    except OSError as error:
        reason = str(error)
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise EmbeddedPostgresError(
            f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER} could not be made"
            f" ({reason}). Make it yourself, start the server as a normal user, or set PAIRING_DATABASE_URL."
        ) from None

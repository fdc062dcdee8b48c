"""backup, restore: save the database and the generated keys in one file, and load them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import click

from pairing_server import logs
from pairing_server.audit.seals import SealKey
from pairing_server.cli.audit.seals import begin_epoch
from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import say
from pairing_server.cli.runtime import load_configuration, owned_database, plain_errors, run_in_loop
from pairing_server.clock import utcnow
from pairing_server.config import SEAL_KEY_FILE, Configuration, with_keys, with_seal_key
from pairing_server.db import last_backup, migrations, roles
from pairing_server.db.backup import archive
from pairing_server.db.backup.connection import BackupError
from pairing_server.db.backup.load import load
from pairing_server.db.backup.save import save
from pairing_server.security.keyfile import NAME as KEY_FILE
from pairing_server.security.keys import parse_keys
from pairing_server.server.backend import app_version


@contextmanager
def _database(config: Configuration) -> Iterator[str]:
    """The database's URL. Its schema is not migrated: a backup may be of an older one."""
    try:
        with owned_database(config) as url:
            yield url
    except BackupError as error:
        raise click.ClickException(str(error)) from None


_BACKING_UP = "docs/operations.md, Backing up"


@click.command(
    epilog=epilog(
        {
            "pairing-server backup /backup/pairing-$(date +%F).tar": "every night",
            "pairing-server backup --with-seal-key - > pairing.tar": "from a service, with the key that seals",
        },
        _BACKING_UP,
    )
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--with-seal-key",
    "with_seal",
    is_flag=True,
    help="Also the key that seals the audit log, if it is kept in the data directory.",
)
def backup(file: Path, with_seal: bool) -> None:
    """Save the database and the generated keys in FILE, or on standard output for `-`.

    The server may run meanwhile: the backup is the state of one moment. With the file one can sign tokens and read all
    accounts, so only you may read it. It holds no settings, and no secrets that are kept elsewhere.

    The key that seals the audit log is left out unless --with-seal-key is given: with it and the database one can make
    other seals. A server that is restored without it makes a new one, and `audit verify` needs the former public key
    (`audit key`).
    """
    config = _load_configuration()
    keys = _keys(config, with_seal)
    if str(file) == "-":
        if sys.stdout.isatty():
            raise click.UsageError("A backup is not text: send standard output to a file.")
        try:
            _save(config, keys, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except (OSError, archive.NotWrittenError) as error:
            raise click.ClickException(f"The backup on standard output is not whole: {error}.") from None
        _note(config.data_dir)
        return
    if file.exists():
        raise click.ClickException(f"{file} exists already; choose another name or move it away.")
    partial = file.with_name(f".{file.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            revision = _save(config, keys, out)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(file)
    except (OSError, archive.NotWrittenError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(f"{file} cannot be written: {cause}") from None
    finally:
        partial.unlink(missing_ok=True)
    _note(config.data_dir)
    say(f"Saved the database at revision {revision} in {file} ({file.stat().st_size:,} bytes).")


def _note(folder: Path) -> None:
    """Note the time in the data directory, for the server that runs on it. Without that directory there is none."""
    with suppress(OSError):
        last_backup.note(folder, utcnow())


def _load_configuration() -> Configuration:
    config = load_configuration()
    logs.configure(config.log_format, "warning")
    return config


def _keys(config: Configuration, with_seal: bool) -> dict[str, bytes]:
    """The files of generated keys that belong to the database."""
    keys = config.data_dir / KEY_FILE
    found = [keys] if not config.jwt_keys and keys.is_file() else []
    if with_seal:
        seal_key = config.data_dir / SEAL_KEY_FILE
        if config.audit_seal_key is not None:
            raise click.UsageError(
                "The key that seals is set by PAIRING_AUDIT_SEAL_KEY: keep that, without --with-seal-key."
            )
        if not seal_key.is_file():
            raise click.ClickException(f"There is no key that seals yet: {seal_key} does not exist.")
        found.append(seal_key)
    try:
        return {path.name: path.read_bytes() for path in found}
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be read: {error.strerror}") from None


def _save(config: Configuration, keys: Mapping[str, bytes], out: BinaryIO) -> str | None:
    """Write the archive. The revision of the saved database."""
    with _database(config) as url:
        about = {"release": app_version(), "made_at": utcnow().isoformat()}
        return run_in_loop(save(url, archive.Writer(out), about, keys)).revision


@click.command(
    epilog=epilog(
        {
            "pairing-server restore pairing.tar": "into an empty database",
            "pairing-server restore --replace - < pairing.tar": "replaces the data that it holds",
        },
        _BACKING_UP,
    )
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--replace", "replacing", is_flag=True, help="Replace data that the database holds.")
def restore(file: Path, replacing: bool) -> None:
    """Load what `backup` saved in FILE (`-`: standard input) into the database of the configuration.

    Stop the server first. The file is checked whole before anything is changed, and then all of it is loaded or nothing.
    A database that holds data of a server is left as it is, unless --replace is given; tables of other programs always
    are. A backup of an older release is migrated to this one's schema, one of a newer release is refused. The audit log
    begins a new epoch, as with `audit rebase`.
    """
    config = _load_configuration()
    with _seekable(file, config) as source:
        contents = _checked(file, source, config)
        running = roles.role_of(config.database_url) if config.database_url else ""
        with _database(config) as url, _new_keys(config, contents.keys) as keys:
            source.seek(0)
            revision = _load(
                load(url, source, contents, running=running or roles.role_of(url), replacing=replacing), file
            )
            for key in keys:
                key.fresh.replace(key.path)
            say(
                f"Restored what was saved at {contents.about.made_at}; the database is at revision {revision}."
            )
            _begin_epoch(config, url)


def _begin_epoch(config: Configuration, url: str) -> None:
    try:
        with plain_errors():
            begin_epoch(with_seal_key(with_keys(config)), url)
    except click.ClickException as error:
        raise click.ClickException(
            f"{error.message}\nThe data are restored, but the audit log has not begun a new epoch, and until it has no server"
            " starts. Run: pairing-server audit rebase"
        ) from None


def _seekable(file: Path, config: Configuration) -> BinaryIO:
    """The file, opened: it is read twice."""
    try:
        if str(file) != "-":
            return file.open("rb")
        spool = cast("BinaryIO", tempfile.TemporaryFile(prefix="pairing-restore-", dir=_spool_folder(config)))  # noqa: SIM115
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.seek(0)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    return spool


def _spool_folder(config: Configuration) -> Path:
    """Where temporary files go, or the data directory, where there is no such folder (a container with a read-only root)."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return config.data_dir


def _checked(file: Path, source: BinaryIO, config: Configuration) -> archive.Contents:
    """What is in the file. Raises ClickException if it is not whole or not for this release."""
    try:
        contents = archive.read(source)
        about = contents.about
    except archive.DamagedError as error:
        raise click.ClickException(
            f"{file} is no backup of this server, or it is incomplete: {error}."
        ) from None
    if not migrations.known(about.revision):
        raise click.ClickException(
            f"The backup is of release {about.release}, whose schema ({about.revision}) is newer than this"
            f" release knows ({migrations.head()}). Install that release first."
        )
    try:
        for name, parse in ((KEY_FILE, parse_keys), (SEAL_KEY_FILE, SealKey.parse)):
            if name in contents.keys:
                parse(contents.keys[name].decode().strip())
    except ValueError as error:
        raise click.ClickException(f"The keys ({name}) in {file} are not usable: {error}") from None
    if KEY_FILE not in contents.keys and not config.jwt_keys:
        say(
            "Note: the backup holds no signing keys, as its server had them in PAIRING_JWT_KEYS. Set that to the same"
            " keys, or all tokens and live codes are void.",
            err=True,
        )
    return contents


def _load(work: Coroutine[None, None, str], file: Path) -> str:
    try:
        return run_in_loop(work)
    except archive.DamagedError as error:
        raise click.ClickException(f"{file} has changed meanwhile: {error}. Nothing was restored.") from None


class _NewKey(NamedTuple):
    fresh: Path
    path: Path


@contextmanager
def _new_keys(config: Configuration, saved: Mapping[str, bytes]) -> Iterator[list[_NewKey]]:
    """The saved keys, unless the configuration sets others, in files beside their places: what may fail, fails before the
    database is changed. Tokens and seals in use were made with them."""
    set_otherwise = {KEY_FILE: bool(config.jwt_keys), SEAL_KEY_FILE: config.audit_seal_key is not None}
    # Those that stay must be usable, too.
    if KEY_FILE not in saved:
        with_keys(config)
    if SEAL_KEY_FILE not in saved:
        with_seal_key(config)
    wanted = [name for name, otherwise in set_otherwise.items() if name in saved and not otherwise]
    keys = [_NewKey(config.data_dir / f".{name}.restored", config.data_dir / name) for name in wanted]
    try:
        try:
            for key in keys:
                _write_key(key, saved[key.path.name])
        except OSError as error:
            raise click.ClickException(
                f"{error.filename or config.data_dir} cannot be written: {error.strerror}. Nothing was restored."
            ) from None
        yield keys
    finally:
        for key in keys:
            with suppress(OSError):
                key.fresh.unlink()


def _write_key(key: _NewKey, text: bytes) -> None:
    key.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key.fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(key.fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        if key.path.exists():
            # The command may run as another user than the server.
            before = key.path.stat()
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(out.fileno(), before.st_uid, before.st_gid)
        out.write(text)
        out.flush()
        os.fsync(out.fileno())

"""backup, restore: save the database and the generated keys in one file, and load them."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from pairing_server import logs
from pairing_server.audit.seals import SealKey
from pairing_server.cli.audit.seals import begin_epoch
from pairing_server.cli.epilog import epilog
from pairing_server.cli.runtime import load_configuration, plain_errors
from pairing_server.clock import utcnow
from pairing_server.config import SEAL_KEY_FILE, Configuration, with_keys, with_seal_key
from pairing_server.db import backup as database_backup
from pairing_server.db import migrations, roles
from pairing_server.db.embedded.postgres import EmbeddedPostgres
from pairing_server.security.keyfile import NAME as KEY_FILE
from pairing_server.security.keys import parse_keys
from pairing_server.server.backend import app_version

# The members of the archive.
_ABOUT, _DATABASE, _KEYS, _SEAL_KEY = "about.json", "database", KEY_FILE, SEAL_KEY_FILE


@contextmanager
def _database(config: Configuration) -> Iterator[str]:
    """The database's URL. Its schema is not migrated: a backup may be of an older one."""
    with plain_errors():
        try:
            if config.database_url is not None:
                yield config.migrate_database_url or config.database_url
                return
            embedded = EmbeddedPostgres(config.data_dir)
            try:
                yield embedded.start()
            finally:
                embedded.stop()
        except database_backup.BackupError as error:
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
        with _database(config) as url:
            _save(keys, url, sys.stdout.buffer)
        return
    if file.exists():
        raise click.ClickException(f"{file} exists already; choose another name or move it away.")
    partial = file.with_name(f".{file.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out, _database(config) as url:
            revision = _save(keys, url, out)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    click.echo(f"Saved the database at revision {revision} in {file} ({file.stat().st_size:,} bytes).")


def _load_configuration() -> Configuration:
    config = load_configuration()
    logs.configure(config.log_format, "warning")
    return config


def _keys(config: Configuration, with_seal: bool) -> list[Path]:
    """The files of generated keys that belong to the database."""
    keys = config.data_dir / _KEYS
    found = [keys] if not config.jwt_keys and keys.is_file() else []
    if with_seal:
        seal_key = config.data_dir / _SEAL_KEY
        if config.audit_seal_key is not None:
            raise click.UsageError(
                "The key that seals is set by PAIRING_AUDIT_SEAL_KEY: keep that, without --with-seal-key."
            )
        if not seal_key.is_file():
            raise click.ClickException(f"There is no key that seals yet: {seal_key} does not exist.")
        found.append(seal_key)
    return found


def _save(keys: Sequence[Path], url: str, out: BinaryIO) -> str:
    """Write the archive. The revision of the saved database."""
    state = database_backup.state(url)
    if state.revision is None:
        raise database_backup.BackupError("There is nothing to save: the database has no schema yet.")
    about = {"release": app_version(), **state._asdict(), "made_at": utcnow().isoformat()}
    with tempfile.TemporaryDirectory(prefix="pairing-backup-") as place:
        saved = Path(place) / _DATABASE
        database_backup.dump(url, saved)
        with tarfile.open(fileobj=out, mode="w|") as archive:
            _add(archive, _ABOUT, json.dumps(about).encode())
            archive.add(saved, _DATABASE, filter=_anonymous)
            for key in keys:
                _add(archive, key.name, key.read_bytes())
    return state.revision


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member without its owner, readable by its owner only."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(_anonymous(member), io.BytesIO(data))


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

    Stop the server first. A database that holds data is left as it is, unless --replace is given. A backup of an older
    release is migrated to this one's schema. One of a newer release is refused, unless its schema works with this
    release. The audit log begins a new epoch, as with `audit rebase`.
    """
    config = _load_configuration()
    with tempfile.TemporaryDirectory(prefix="pairing-restore-") as place:
        about = _unpack(file, Path(place))
        saved = migrations.State(str(about.get("revision")), str(about.get("works_with")))
        if saved.newer and not saved.suits:
            raise click.ClickException(
                f"The backup is of release {about.get('release')}, whose schema ({saved.revision}) is newer than this"
                f" release knows ({migrations.head()}). Install that release first."
            )
        with _database(config) as url:
            _check_target(url, replacing)
            database_backup.load(url, Path(place) / _DATABASE)
            revision = migrations.migrate(url)
            running = roles.role_of(config.database_url or url)
            if running != roles.role_of(url):
                roles.grant(url, running)
            _restore_keys(config, Path(place))
            click.echo(
                f"Restored what was saved at {about.get('made_at')}; the database is at revision {revision}."
            )
            begin_epoch(with_seal_key(with_keys(config)), url)


def _unpack(file: Path, place: Path) -> dict[str, object]:
    try:
        source = sys.stdin.buffer if str(file) == "-" else file.open("rb")
        with source, tarfile.open(fileobj=source, mode="r|") as archive:
            for member in archive:
                data = archive.extractfile(member) if member.isfile() else None
                if data is not None and member.name in (_ABOUT, _DATABASE, _KEYS, _SEAL_KEY):
                    with (place / member.name).open("wb") as out:
                        shutil.copyfileobj(data, out)
        about = json.loads((place / _ABOUT).read_bytes())
        if not isinstance(about, dict) or not (place / _DATABASE).is_file():
            raise ValueError
    except (OSError, ValueError, tarfile.TarError):
        raise click.ClickException(f"{file} is no backup of this server, or it is incomplete.") from None
    return about


def _check_target(url: str, replacing: bool) -> None:
    if connected := database_backup.users(url):
        raise database_backup.BackupError(
            f"A server is using the database ({connected} connections). Stop it first."
        )
    if not replacing and database_backup.state(url).revision is not None:
        raise database_backup.BackupError(
            "The database holds data. Give --replace to replace them, or set PAIRING_DATABASE_URL to an empty database."
        )


def _restore_keys(config: Configuration, place: Path) -> None:
    """Write the generated keys, unless the configuration sets others: tokens and seals in use were made with them."""
    if not config.jwt_keys and (saved := place / _KEYS).is_file():
        text = saved.read_text(encoding="utf-8")
        parse_keys(text.strip())
        _write_key(config, _KEYS, text)
    if config.audit_seal_key is None and (saved := place / _SEAL_KEY).is_file():
        text = saved.read_text(encoding="utf-8")
        SealKey.parse(text)
        _write_key(config, _SEAL_KEY, text)


def _write_key(config: Configuration, name: str, text: str) -> None:
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(config.data_dir / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)

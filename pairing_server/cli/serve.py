"""serve, migrate, config: start the server, migrate its database, show its configuration."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pairing_server import logs
from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import say
from pairing_server.cli.runtime import (
    database,
    load_configuration,
    plain_errors,
    reloader,
    revivable_database,
    run_in_loop,
)
from pairing_server.config import SETTINGS, Configuration, keyfile_of, sources
from pairing_server.config.setting import Setting
from pairing_server.db import migrations, roles
from pairing_server.server.init_process import split_off
from pairing_server.server.lifecycle import Resources
from pairing_server.server.lifecycle import serve as serve_node
from pairing_server.server.server import check_address
from pairing_server.server.systemd import take_activation
from pairing_server.text import plain
from pairing_server.web import descriptors

DEFAULTS = Configuration()

log = logging.getLogger(__name__)


class LoggedCommand(click.Command):
    """Its standard error is a log. Where no person reads it on a terminal, an error is an event of it as well."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        logs.before_configuration(os.environ)
        logs.log_everything()
        with _errors_logged():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _errors_logged():
            return super().invoke(ctx)


@contextmanager
def _errors_logged() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        if sys.stderr.isatty():
            raise
        log.critical("ended", extra={"error": error.format_message()})
        raise click.exceptions.Exit(error.exit_code) from None


@click.command(
    cls=LoggedCommand,
    epilog=epilog(
        {
            "pairing-server serve": f"on {DEFAULTS.host}:{DEFAULTS.port}, data in ./{DEFAULTS.data_dir}",
            "pairing-server serve --host 0.0.0.0 --port 8090 --data-dir /srv/pairing": "elsewhere",
            "PAIRING_DATABASE_URL=postgresql://pairing@db/pairing pairing-server serve": "with a database of your own",
        },
        "docs/operations.md, Starting",
        "0 after SIGTERM or Ctrl-C; 1 it cannot start, and standard error says why; 2 wrong use",
    ),
)
@click.option("--host", help="Address to listen on (PAIRING_HOST).")
@click.option("--port", help="Port to listen on; 0 takes a free one (PAIRING_PORT).")
@click.option("--data-dir", help="Where the embedded database and the keys are kept (PAIRING_DATA_DIR).")
@click.option("--no-wait", is_flag=True, help="End with status 1 if the database is not there yet.")
def serve(host: str | None, port: str | None, data_dir: str | None, no_wait: bool) -> None:
    """Start the server, and stop it with Ctrl-C or SIGTERM.

    Without PAIRING_DATABASE_URL it runs an embedded PostgreSQL in the data directory, and migrates it. Another database
    must be migrated before (`migrate`); while it is not there, the server listens, /readyz is 503, and it waits. The first
    start makes signing keys. SIGTERM closes every connection so that its client reconnects; SIGHUP reloads the configuration.
    """
    options = {"PAIRING_HOST": host, "PAIRING_PORT": port, "PAIRING_DATA_DIR": data_dir}
    config = load_configuration(options)
    logs.configure(config.log_format, config.log_level)
    descriptors.raise_limit()
    split_off()
    with plain_errors():
        activation = take_activation(os.environ)
        if not activation.sockets:
            check_address(config)
    with revivable_database(config) as (ready, url, embedded), plain_errors():
        # Imported objects stay: to collect them again would block the loop for tens of milliseconds.
        gc.collect()
        gc.freeze()
        run_in_loop(
            serve_node(
                Resources(ready, url, keyfile_of(config), embedded),
                activation,
                lambda addresses: None if activation.supervised else _announce(ready, addresses),
                reloader(options),
                patient=not no_wait,
            )
        )
    log.info("stopped")


def _announce(config: Configuration, addresses: list[tuple[str, int]]) -> None:
    host, port = addresses[0]
    shown = f"[{host}]" if ":" in host else host
    base = f"http://{shown}:{port}"
    registration = "open" if config.registration == "open" else "closed (pairing-server user add NAME)"
    account = "" if config.registration == "open" else " --username NAME"
    demo = f"  See it work    {base}/\n" if config.demo else ""
    say(
        f"\nPairing server is listening on {base}\n"
        f"{demo}"
        f"  WebSocket      {base.replace('http', 'ws', 1)}/ws\n"
        f"  API reference  {base}/docs\n"
        f"  Registration   {registration}\n"
        f"\nTry a whole pairing, as two devices would:\n"
        f"  pairing-server doctor --url {base}{account}      (in a checkout: .venv/bin/pairing-server …)\n"
        f"\nStop with Ctrl-C."
    )


@click.command(
    epilog=epilog(
        {
            "pairing-server migrate": "before a new release starts; servers may run meanwhile",
            "pairing-server migrate --before-start": "in a unit, as ExecStartPre=",
        },
        "docs/operations.md, Upgrading",
    )
)
@click.option("--revision", default="head", show_default=True, help="Migrate up to this revision.")
@click.option(
    "--before-start",
    is_flag=True,
    help="Do only what `serve` does not: skip an embedded database, which `serve` migrates, and a database that is "
    "away, which `serve` waits for. It reports in the log.",
)
def migrate(revision: str, before_start: bool) -> None:
    """Migrate the database to the schema of this release.

    PAIRING_MIGRATE_DATABASE_URL is the URL of the role that owns the tables. If it is set, that role migrates, and
    grants the role of PAIRING_DATABASE_URL what it needs: of the audit log, only to add to it.

    Does nothing if the schema is there already. A server of the previous release may run meanwhile.
    """
    if before_start:
        logs.before_configuration(os.environ)
        with _errors_logged():
            _migrate_before_start(revision)
        return
    config = load_configuration()
    logs.configure(config.log_format, config.log_level)
    reached = _migrate(config, revision)
    newer = (
        ""
        if migrations.known(reached)
        else f", which is newer than this release's ({migrations.head()}) and works with it"
    )
    say(f"The database is at revision {reached}{newer}.")


def _migrate_before_start(revision: str) -> None:
    """Its lines stand in the log of the service."""
    config = load_configuration()
    logs.configure(config.log_format, config.log_level)
    if config.embedded:
        log.info("migration left to serve", extra={"reason": "the database is the embedded one"})
        return
    try:
        log.info("database migrated", extra={"revision": _migrate(config, revision)})
    except _NotThere as error:
        log.warning("migration left to serve", extra={"reason": error.message})


class _NotThere(click.ClickException):
    """The database cannot be reached."""


def _migrate(config: Configuration, revision: str) -> str:
    """The revision that is reached. Raises ClickException."""
    with database(config) as (_, url):
        owner = config.migrate_database_url or url
        reached = migrations.head() if revision == "head" else revision
        try:
            if not config.embedded:  # `database` has migrated that one as its owner
                reached = migrations.migrate(owner, revision)
            if reached == migrations.head() and roles.role_of(owner) != roles.role_of(url):
                roles.grant(owner, roles.role_of(url))
        except migrations.NotReachable as error:
            raise _NotThere(str(error)) from None
    return reached


@click.command(
    epilog=epilog(
        {
            "pairing-server config": "all settings; without a comment above it one has its default",
            "PAIRING_CODE_TTL=60 pairing-server config": "what a change would give",
            "pairing-server config --explain": "with what each means",
        },
        "docs/operations.md, Settings",
        "0 they are right; 1 they are not, and standard error names each fault; 2 wrong use",
    )
)
@click.option(
    "--explain", is_flag=True, help="Say what each means, its unit, and whether SIGHUP takes it over."
)
def config(explain: bool) -> None:
    """Print the settings in effect, secrets masked. A comment says where the value below it is from.

    They come from PAIRING_* of the environment, else from credential files, else from the file that PAIRING_SETTINGS_FILE
    names or `.env`, else they are the defaults. Nothing is started. With --explain all are listed even if some are wrong.
    """
    try:
        config = load_configuration()
    except click.ClickException:
        if explain:
            for setting in SETTINGS:
                _show(setting, DEFAULTS, setting.explanation)
        raise
    given = sources(os.environ)
    for setting in SETTINGS:
        source = given.get(setting.variable)
        remarks = [setting.explanation] if explain else []
        if source or explain:
            remarks.append(f"from {source}" if source else "default")
        _show(setting, config, *remarks)
    if not Path(config.data_dir).exists():
        say(f"# {config.data_dir} does not exist yet; the first start makes it.", err=True)


def _show(setting: Setting[Any], config: Configuration, *remarks: str) -> None:
    for remark in remarks:
        say(f"# {remark}")
    say(f"{setting.variable}={plain(setting.text(getattr(config, setting.name)))}")

"""What a command runs in: the configuration, the database, the services, an event loop, and errors as plain messages."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TypeVar

import click

from pairing_server import logs
from pairing_server.config import (
    Configuration,
    ConfigurationError,
    keyfile_of,
    load,
    settings_file,
    with_keys,
    with_seal_key,
)
from pairing_server.db import migrations, roles
from pairing_server.db.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError
from pairing_server.db.errors import DATABASE_ERRORS, for_operator
from pairing_server.errors import PairingServerError, RateLimited
from pairing_server.request_context import RequestContext
from pairing_server.server.backend import Backend
from pairing_server.server.server import event_loop
from pairing_server.server.startup_checks import StartError, check_schema
from pairing_server.server.systemd import ActivationError
from pairing_server.tracing import TracesError

log = logging.getLogger(__name__)

T = TypeVar("T")


def read_configuration(overrides: Mapping[str, str | None] | None = None) -> Configuration:
    """The configuration. Raises ConfigurationError with every fault."""
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    return load(os.environ, given, terminal=sys.stderr.isatty())


def reloader(overrides: Mapping[str, str | None]) -> Callable[[], Configuration]:
    """A function that reads the configuration again, with its keys. It raises ConfigurationError.

    A file of settings that was there at first must be there again: while an editor replaces it, all that it sets would
    be the default for a moment.
    """
    path = settings_file(os.environ)
    existed = path.exists()

    def reload() -> Configuration:
        if existed and not path.exists():
            raise ConfigurationError(
                f"{path}: this file was there at the start, and is gone; an empty one will do"
            )
        return with_seal_key(with_keys(read_configuration(overrides)))

    return reload


def load_configuration(overrides: Mapping[str, str | None] | None = None) -> Configuration:
    """The configuration. Raises ClickException with every fault."""
    try:
        return read_configuration(overrides)
    except ConfigurationError as error:
        raise click.ClickException(f"The configuration is not valid.\n{error}") from None


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn errors of this package and of the database into one plain message without a traceback."""
    try:
        yield
    except (
        ConfigurationError,
        StartError,
        ActivationError,
        EmbeddedPostgresError,
        migrations.MigrationError,
        TracesError,
    ) as error:
        raise click.ClickException(str(error)) from None
    except DATABASE_ERRORS as error:
        raise click.ClickException(for_operator(error)) from None
    except PairingServerError as error:
        lines = [error.text, *_details(error)]
        if isinstance(error, RateLimited):
            lines.append(f"try again in {error.retry_after_s:.0f} s")
        raise click.ClickException("\n".join(lines)) from None


def _details(error: PairingServerError) -> list[str]:
    fields = error.details.get("fields")
    if isinstance(fields, dict):
        return [f"{name}: {' '.join(texts)}" for name, texts in fields.items()]
    return [f"{key}: {value}" for key, value in error.details.items()]


@contextmanager
def database(config: Configuration) -> Iterator[tuple[Configuration, str]]:
    """The configuration with keys, and the database's URL. The embedded database is migrated and runs inside the block."""
    with revivable_database(config) as (ready, url, _):
        yield ready, url


@contextmanager
def owned_database(config: Configuration) -> Iterator[str]:
    """The database's URL for the role that owns the tables. The schema stays as it is; the embedded database runs inside
    the block."""
    with plain_errors():
        if config.database_url is not None:
            yield config.migrate_database_url or config.database_url
            return
        embedded = EmbeddedPostgres(config.data_dir, group=config.data_dir_group)
        try:
            yield embedded.start()
        finally:
            embedded.stop()


@contextmanager
def revivable_database(
    config: Configuration,
) -> Iterator[tuple[Configuration, str, EmbeddedPostgres | None]]:
    """As `database`, and the embedded database, which can be started again; None for an external one."""
    with plain_errors():
        ready = with_seal_key(with_keys(config))
        if ready.database_url is not None:
            yield ready, ready.database_url, None
            return
        embedded = EmbeddedPostgres(ready.data_dir, group=ready.data_dir_group)
        log.info("embedded database starting", extra={"data_dir": str(ready.data_dir)})
        try:
            url = embedded.start()
            newest = migrations.migrate(url) == migrations.head()
            yield ready, roles.make_running(url, rights=newest), embedded
        finally:
            embedded.stop()


def run(work: Callable[[Backend], Awaitable[T]]) -> T:
    """Run `work` with the services. Raises ClickException."""
    config = load_configuration()
    logs.configure(config.log_format, "warning")
    with database(config) as (ready, url):
        return run_in_loop(_with_backend(partial(Backend, ready, url, keyfile_of(config)), work))


async def _with_backend(build: Callable[[], Backend], work: Callable[[Backend], Awaitable[T]]) -> T:
    backend = build()
    try:
        await check_schema(backend.database)
        return await work(backend)
    finally:
        await backend.close()


def run_in_loop(work: Awaitable[T]) -> T:
    """Run the coroutine to its end in a fresh event loop."""

    async def main() -> T:
        return await work

    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(main())


def read_password(*, terminal: bool = True, confirm: bool = False) -> str:
    """A password from the terminal, else from the first line of standard input. `terminal` false: never ask.

    It is no argument, since other users of the machine can see those. Raises ClickException.
    """
    if terminal and sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm))
    try:
        line = sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.ClickException("The password on standard input is not text in UTF-8.") from None
    if not line:
        raise click.ClickException("Give the password on standard input, or run this on a terminal.")
    return line


def administrator(now: datetime) -> RequestContext:
    """The operator of this machine, who may do everything."""
    return RequestContext(now, kind="admin")

"""What the commands share: the settings, the database for as long as one runs, and errors in plain words."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

import click

from pairing_server import logs
from pairing_server.config import (
    Configuration,
    ConfigurationError,
    keyfile_of,
    load,
    with_keys,
    with_seal_key,
)
from pairing_server.db import migrations, roles
from pairing_server.db.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError
from pairing_server.errors import PairingServerError, RateLimited
from pairing_server.request_context import RequestContext
from pairing_server.security.keyfile import KeyFile
from pairing_server.server.server import Node, event_loop
from pairing_server.server.startup_checks import StartError, check_schema
from pairing_server.server.systemd import ActivationError
from pairing_server.services.deps import Deps
from pairing_server.tracing import TracesError

T = TypeVar("T")


def read_configuration(overrides: Mapping[str, str | None] | None = None) -> Configuration:
    """The settings. Raises ConfigurationError with every fault."""
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    return load(os.environ, given, terminal=sys.stderr.isatty())


def load_configuration(overrides: Mapping[str, str | None] | None = None) -> Configuration:
    """The settings. Raises ClickException with every fault."""
    try:
        return read_configuration(overrides)
    except ConfigurationError as error:
        raise click.ClickException(f"The settings are not right.\n{error}") from None


@contextmanager
def plainly() -> Iterator[None]:
    """Errors of ours become one plain message, without a traceback."""
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
    except PairingServerError as error:
        told = [error.text, *_details(error)]
        if isinstance(error, RateLimited):
            told.append(f"try again in {error.retry_after_s:.0f} s")
        raise click.ClickException("\n".join(told)) from None


def _details(error: PairingServerError) -> list[str]:
    fields = error.details.get("fields")
    if isinstance(fields, dict):
        return [f"{name}: {' '.join(texts)}" for name, texts in fields.items()]
    return [f"{key}: {value}" for key, value in error.details.items()]


@contextmanager
def database(config: Configuration) -> Iterator[tuple[Configuration, str]]:
    """The settings with keys, and the database's URL; the embedded database runs meanwhile, migrated."""
    with database_to_revive(config, lambda _: None) as (ready, url, _):
        yield ready, url


@contextmanager
def database_to_revive(
    config: Configuration, say: Callable[[str], None]
) -> Iterator[tuple[Configuration, str, Callable[[], None] | None]]:
    """As `database`, and what starts it again should it die; None if it is somebody else's."""
    with plainly():
        ready = with_seal_key(with_keys(config))
        if ready.database_url is not None:
            yield ready, ready.database_url, None
            return
        embedded = EmbeddedPostgres(ready.data_dir)
        say(f"Starting the embedded PostgreSQL in {ready.data_dir} …")
        try:
            url = embedded.start()
            newest = migrations.migrate(url) == migrations.head()
            yield ready, roles.make_running(url, rights=newest), embedded.revive
        finally:
            embedded.stop()


def run(work: Callable[[Deps], Awaitable[T]]) -> T:
    """Do one piece of administration with the services. Raises ClickException."""
    config = load_configuration()
    logs.configure(config.log_format, "warning")
    with database(config) as (ready, url):
        return run_in_loop(_with_deps(ready, url, work, keyfile_of(config)))


async def _with_deps(
    config: Configuration, url: str, work: Callable[[Deps], Awaitable[T]], keyfile: KeyFile | None
) -> T:
    node = Node(config, url, keyfile)
    try:
        await check_schema(node.database)
        return await work(node.deps)
    finally:
        await node.release()


def run_in_loop(work: Awaitable[T]) -> T:
    """Run the coroutine to its end in a fresh event loop."""

    async def main() -> T:
        return await work

    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(main())


def password_from_input(*, terminal: bool = True, confirm: bool = False) -> str:
    """Asked for on a terminal, unless that is not wanted, else the first line of standard input. Never an argument: those
    others see. Raises ClickException."""
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
    """Whoever may run commands on this machine."""
    return RequestContext(now, kind="admin")

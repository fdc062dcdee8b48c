"""audit …: questions to the audit log, and its export. About its seals: cli/audit/seals.py."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from pairing_server.audit.export import Export, private
from pairing_server.audit.formats import MEDIA
from pairing_server.audit.formats.fields import as_json as event_as_json
from pairing_server.audit.query import AuditReader
from pairing_server.audit.store.search import Recorded
from pairing_server.audit.tail import PAGE, TailBatch
from pairing_server.cli.audit.filters import filters, question
from pairing_server.cli.audit.summary import lines
from pairing_server.cli.audit.table import details, followed, heads, table
from pairing_server.cli.epilog import epilog
from pairing_server.cli.runtime import administrator, run
from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext
from pairing_server.server.backend import Backend
from pairing_server.text import plain, plain_json
from pairing_server.web.audit.handlers import AuditSummaryAnswer

T = TypeVar("T")

_SUMMARY = AuditSummaryAnswer()
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object a line.")
_GUIDE = "docs/audit.md, A reviewer's guide"


def _ask(ask: Callable[[AuditReader, RequestContext], Awaitable[T]]) -> T:
    """What the reader answers. Raises ClickException."""
    return run(lambda backend: ask(backend.services.audit.reader, administrator(utcnow())))


def _json(recorded: Recorded) -> str:
    return plain_json(event_as_json(recorded))


@click.group(
    epilog=epilog(
        {
            "pairing-server audit summary --since 24h": "who failed, who was locked out",
            "pairing-server audit list --since 7d --event 'auth.*' --outcome failure": "failed logins",
            "pairing-server audit list --address 203.0.113.0/24 --severity warning": "from a network",
        },
        _GUIDE,
    )
)
def audit() -> None:
    """Ask the audit log. What is asked is recorded in it, too."""


@audit.command(
    "list",
    epilog=epilog(
        {
            "pairing-server audit list --since 1h --event pairing.redeem --outcome failure": "guesses",
            "pairing-server audit list --user alice --json": "for programs",
        },
        _GUIDE,
    ),
)
@filters
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@_AS_JSON
def list_events(limit: int, as_json: bool, **given: Any) -> None:
    """The events that match, newest first."""
    asked = question(given, utcnow())
    found = _ask(lambda reader, context: reader.newest(context, asked, limit))
    if as_json:
        for recorded in found.events:
            click.echo(_json(recorded))
    elif found.events:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo("\n".join(table(found.events, found.names, width)))
    if not found.events:
        click.echo("No events match.", err=True)
    elif found.next is not None and not as_json:
        click.echo(f"These are the newest {limit}; for older ones: --until, --limit.", err=True)


@audit.command(epilog=epilog({"pairing-server audit show 1204": "the event of that number"}, _GUIDE))
@click.argument("number", type=click.IntRange(0, 2**63 - 1))
@_AS_JSON
def show(number: int, as_json: bool) -> None:
    """All that is known of one event; its number is the first column of the list."""
    found = _ask(lambda reader, context: reader.event(context, number))
    if as_json:
        click.echo(_json(found.event))
    else:
        click.echo("\n".join(details(found)))


@audit.command(epilog=epilog({"pairing-server audit summary --since 7d": "the last week"}, _GUIDE))
@click.option("--since", metavar="SINCE", help="From then on: a time, or 30m, 24h, 7d ago; 24h unless given.")
@click.option("--until", metavar="UNTIL", help="Before then: a time, or how long ago.")
@_AS_JSON
def summary(as_json: bool, since: str | None, until: str | None) -> None:
    """What a reviewer asks first: who failed, who was locked out, who intruded, who is somewhere new."""
    asked = question({"since": since, "until": until, "event": ()}, utcnow())
    found = _ask(lambda reader, context: reader.summary(context, asked))
    if as_json:
        click.echo(plain_json(_SUMMARY.dump(found)))
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 140)
    click.echo("\n".join(lines(found, width)))


@audit.command(
    epilog=epilog(
        {
            "pairing-server audit follow --severity notice": "what matters, as it comes",
            "pairing-server audit follow --json >> audit.jsonl": "into a file",
        },
        _GUIDE,
        "0 after Ctrl-C, which ends it; 1 it cannot ask, and standard error says why; 2 wrong use",
    )
)
@filters
@_AS_JSON
def follow(as_json: bool, **given: Any) -> None:
    """Print the events that match as they come, until Ctrl-C."""
    asked = question(given, utcnow())
    if asked.which.since is not None or asked.which.until is not None:
        raise click.UsageError(
            "What is followed comes from now on; --since and --until are for `audit list`."
        )

    def show(batch: TailBatch) -> None:
        for recorded in batch.events:
            click.echo(_json(recorded) if as_json else followed(recorded, batch.names))

    async def work(backend: Backend) -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        after = None
        while not stopped.is_set():
            batch = await backend.services.audit.tail.follow(
                administrator(utcnow()), asked, after, timedelta()
            )
            if after is None and not as_json:
                click.echo(heads())
            show(batch)
            after = (batch.token, batch.position)
            if len(batch.events) < PAGE:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), 1)

    run(work)


@audit.command(
    "export",
    epilog=epilog(
        {
            "pairing-server audit export --since 30d --output november.jsonl": "with seals, to be verified",
            "pairing-server audit export --since 24h --format ocsf --output day.ocsf": "for a SIEM",
        },
        _GUIDE,
    ),
)
@filters
@click.option(
    "--format", "form", type=click.Choice([*MEDIA]), default="jsonl", show_default=True, help="See above."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="A new file, which only you may read, rather than the standard output (`-`).",
)
def export(form: str, output: Path | None, **given: Any) -> None:
    """The events that match, oldest first.

    \b
    jsonl   one JSON object a line, with the seals: `audit verify --from-export` verifies it
    csv     for spreadsheets; what one would take for a formula is made a text
    cef     Common Event Format, for SIEMs
    ocsf    Open Cybersecurity Schema Framework, one JSON object a line
    """
    now = utcnow()
    asked = question(given, now)

    async def work(backend: Backend) -> Export:
        made = Export(backend.services.audit.reader, administrator(now), asked, form)
        await made.begin()
        complete = False
        try:
            with _target(output) as write:
                async for chunk in made.chunks():
                    write(chunk)
                    _progress(made)
            complete = True
        finally:
            await made.end(utcnow(), complete=complete)
        return made

    made = run(work)
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(f"{made.rows:,} events, SHA-256 {made.sha256}", err=True)


@contextmanager
def _target(output: Path | None) -> Iterator[Callable[[bytes], object]]:
    """What writes a part. A file that could not be written whole is removed."""
    if output is None or str(output) == "-":
        # The sealed form is not changed anywhere else: it is verified byte by byte.
        out, terminal = sys.stdout.buffer, sys.stdout.isatty()

        def write(part: bytes) -> None:
            out.write(plain(part.decode(), keep="\n").encode() if terminal else part)

        yield write
        out.flush()
        return
    try:
        file = open(output, "xb", opener=private)  # noqa: SIM115
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror or error}") from None
    with file:
        try:
            yield file.write
            file.flush()
        except BaseException:
            output.unlink(missing_ok=True)
            raise


def _progress(made: Export) -> None:
    if sys.stderr.isatty():
        reached = f", up to {made.reached:%Y-%m-%d %H:%M}" if made.reached else ""
        click.echo(f"\r\x1b[K{made.rows:,} events{reached} …", nl=False, err=True)

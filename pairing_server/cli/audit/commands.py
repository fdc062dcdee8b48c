"""audit …: questions to the audit log."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

import click

from pairing_server.audit.formats.fields import as_json as event_as_json
from pairing_server.audit.query import EventDetails, EventPage
from pairing_server.audit.store.search import Recorded
from pairing_server.audit.summary import Summary
from pairing_server.audit.tail import PAGE, TailBatch
from pairing_server.cli.audit.export import export
from pairing_server.cli.audit.filters import filters, question
from pairing_server.cli.audit.summary import lines
from pairing_server.cli.audit.table import details, followed, heads, table
from pairing_server.cli.epilog import epilog
from pairing_server.cli.runtime import administrator, run
from pairing_server.clock import utcnow
from pairing_server.server.backend import Backend
from pairing_server.web.audit.handlers import AuditSummaryAnswer

_SUMMARY = AuditSummaryAnswer()
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object a line.")
_GUIDE = "docs/audit.md, A reviewer's guide"


def _json(recorded: Recorded) -> str:
    return json.dumps(event_as_json(recorded), ensure_ascii=False)


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
    now = utcnow()
    asked = question(given, now)

    async def work(backend: Backend) -> EventPage:
        return await backend.services.audit.reader.newest(administrator(now), asked, limit)

    found = run(work)
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
@click.argument("number", type=click.IntRange(0))
@_AS_JSON
def show(number: int, as_json: bool) -> None:
    """All that is known of one event; its number is the first column of the list."""

    async def work(backend: Backend) -> EventDetails:
        return await backend.services.audit.reader.event(administrator(utcnow()), number)

    found = run(work)
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
    now = utcnow()
    asked = question({"since": since, "until": until, "event": ()}, now)

    async def work(backend: Backend) -> Summary:
        return await backend.services.audit.reader.summary(administrator(now), asked)

    found = run(work)
    if as_json:
        click.echo(json.dumps(_SUMMARY.dump(found), ensure_ascii=False))
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


audit.add_command(export)

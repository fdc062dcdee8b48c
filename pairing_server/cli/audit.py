"""audit …: questions to the audit log."""

from __future__ import annotations

import json
from typing import Any

import click

from pairing_server.cli.audit_filters import filters, question
from pairing_server.cli.audit_table import details, table
from pairing_server.cli.run import administrator, run
from pairing_server.services import audit_reading
from pairing_server.services.audit_reading import Listed
from pairing_server.services.deps import Deps
from pairing_server.web.audit_schemas import AuditEventAnswer
from pairing_server.web.edge import utcnow

_EVENT = AuditEventAnswer()
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object a line.")


@click.group()
def audit() -> None:
    """Ask the audit log. What is asked is recorded in it, too.

    \b
    For example:
      pairing-server audit summary --since 24h
      pairing-server audit list --since 7d --event 'auth.*' --outcome failure
      pairing-server audit list --address 203.0.113.0/24 --severity warning
      pairing-server audit follow
    """


@audit.command("list")
@filters
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@_AS_JSON
def list_events(limit: int, as_json: bool, **given: Any) -> None:
    """The events that match, newest first."""
    now = utcnow()
    asked = question(given, now)

    async def work(deps: Deps) -> Listed:
        return await audit_reading.gather(deps, administrator(), asked, limit, now)

    found = run(work)
    if as_json:
        for recorded in found.events:
            click.echo(json.dumps(_EVENT.dump(recorded), ensure_ascii=False))
    elif found.events:
        click.echo("\n".join(table(found.events, found.names)))
    if not found.events:
        click.echo("No events match.", err=True)
    elif found.next is not None and not as_json:
        click.echo(f"These are the newest {limit}; for older ones: --until, --limit.", err=True)


@audit.command()
@click.argument("number", type=click.IntRange(0))
@_AS_JSON
def show(number: int, as_json: bool) -> None:
    """All that is known of one event; its number is the first column of the list."""

    async def work(deps: Deps) -> Listed:
        return await audit_reading.one_event(deps, administrator(), number, utcnow())

    found = run(work)
    if as_json:
        click.echo(json.dumps(_EVENT.dump(found.events[0]), ensure_ascii=False))
    else:
        click.echo("\n".join(details(found.events[0], found.names)))

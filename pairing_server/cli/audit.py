"""audit …: questions to the audit log."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from uuid import UUID

import click

from pairing_server.cli.run import administrator, run
from pairing_server.services import audit as service
from pairing_server.services.deps import Deps
from pairing_server.store.audit import Filter, Recorded
from pairing_server.web.edge import utcnow
from pairing_server.web.schemas import AuditEventAnswer

_AGO = re.compile(r"\A([0-9]{1,6})([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EVENT = AuditEventAnswer()


class Instant(click.ParamType[datetime]):
    """A time: RFC 3339 (without a zone: UTC), or how long ago such as 30m, 24h, 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            if found := _AGO.match(text):
                return utcnow() - timedelta(**{_UNITS[found[2]]: int(found[1])})
            parsed = datetime.fromisoformat(text)
            zoned = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            # The database keeps it in UTC, where the first and the last year may have no such moment.
            return zoned.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no time; give 2026-01-31T12:00:00Z, 2026-01-31, or 24h for a day ago")


@click.group()
def audit() -> None:
    """Ask the audit log. What is asked is recorded in it, too."""


@audit.command("list")
@click.option("--since", type=Instant(), help="From then on; also 30m, 24h, 7d.")
@click.option("--until", type=Instant(), help="Before then.")
@click.option(
    "--event", type=click.Choice(sorted(service.EVENTS)), metavar="EVENT", help="Such as pairing.redeem."
)
@click.option("--actor", help="The subject who acted: an id of `user list`.")
@click.option("--address", help="The client's address, or a network such as 10.0.0.0/8.")
@click.option("--pairing", type=click.UUID, help="A pairing's id.")
@click.option("--outcome", type=click.Choice(["success", "failure", "denied", "error"]))
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option(
    "--format", "form", type=click.Choice(["table", "jsonl", "csv"]), default="table", show_default=True
)
def list_events(
    since: datetime | None,
    until: datetime | None,
    event: str | None,
    actor: str | None,
    address: str | None,
    pairing: UUID | None,
    outcome: str | None,
    limit: int,
    form: str,
) -> None:
    """The events that match, newest first."""
    try:
        network = ip_network(address, strict=False) if address else None
    except ValueError:
        raise click.BadParameter(f"{address!r} is no address or network", param_hint="--address") from None
    which = Filter(since, until, event, actor, network, pairing, outcome)

    async def work(deps: Deps) -> list[Recorded]:
        async with deps.database.transaction() as conn:
            return await service.page(deps.audit, conn, administrator(), which, limit, None, utcnow())

    found = run(work)
    click.echo(_FORMS[form](found), nl=bool(found) or form == "csv")
    if not found:
        click.echo("No events match.", err=True)


def _rows(found: Sequence[Recorded]) -> list[dict[str, object]]:
    return [_EVENT.dump(recorded) for recorded in found]


def _jsonl(found: Sequence[Recorded]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in _rows(found))


def _inert(value: object) -> str:
    """A spreadsheet takes a cell that begins like this for a formula."""
    text = (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict)
        else ""
        if value is None
        else str(value)
    )
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _csv(found: Sequence[Recorded]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(_EVENT.fields)
    writer.writerow(names)
    for row in _rows(found):
        writer.writerow([_inert(row.get(name)) for name in names])
    return out.getvalue().rstrip("\n")


def _table(found: Sequence[Recorded]) -> str:
    lines = [f"{'time (UTC)':19}  {'event':22} {'outcome':8} {'actor':36} {'address':15}  details"]
    for recorded in found:
        event = recorded.event
        details = {**({"reason": event.reason} if event.reason else {}), **event.attrs}
        if event.pairing_id:
            details["pairing"] = str(event.pairing_id)
        told = " ".join(f"{key}={value}" for key, value in details.items() if value is not None)
        actor = event.actor_subject or event.actor_kind
        lines.append(
            f"{recorded.recorded_at:%Y-%m-%d %H:%M:%S}  {event.event:22} {event.outcome:8} {actor:36}"
            f" {event.address or '-':15}  {told}"
        )
    return "\n".join(lines) if found else ""


_FORMS = {"table": _table, "jsonl": _jsonl, "csv": _csv}

"""audit export: the log as a file for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from pairing_server.audit.export import Export
from pairing_server.audit.formats import MEDIA
from pairing_server.cli.audit.filters import filters, question
from pairing_server.cli.epilog import epilog
from pairing_server.cli.runtime import administrator, run
from pairing_server.clock import utcnow
from pairing_server.server.backend import Backend


@click.command(
    "export",
    epilog=epilog(
        {
            "pairing-server audit export --since 30d --output november.jsonl": "with seals, to be verified",
            "pairing-server audit export --since 24h --format ocsf --output day.ocsf": "for a SIEM",
        },
        "docs/audit.md, A reviewer's guide",
    ),
)
@filters
@click.option(
    "--format", "form", type=click.Choice([*MEDIA]), default="jsonl", show_default=True, help="See above."
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="A new file, rather than the output."
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
            with _target(output) as target:
                async for chunk in made.chunks():
                    target.write(chunk)
                    _progress(made)
                target.flush()
            complete = True
        finally:
            await made.end(utcnow(), complete=complete)
        return made

    made = run(work)
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(f"{made.rows:,} events, SHA-256 {made.sha256}", err=True)


def _target(output: Path | None) -> Any:
    if output is None:
        return click.open_file("-", "wb")
    try:
        target: BinaryIO = output.open("xb")
    except OSError as error:
        raise click.ClickException(f"Cannot write {output}: {error.strerror or error}.") from None
    return target


def _progress(made: Export) -> None:
    if sys.stderr.isatty():
        reached = f", up to {made.reached:%Y-%m-%d %H:%M}" if made.reached else ""
        click.echo(f"\r\x1b[K{made.rows:,} events{reached} …", nl=False, err=True)

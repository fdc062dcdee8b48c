"""What a command prints. Names, subjects and the like are what a client chose, so they are made plain here."""

from __future__ import annotations

import click

from pairing_server.text import plain


def say(text: str, *, err: bool = False) -> None:
    """Print text of one line or several, on standard output or standard error."""
    click.echo(plain(text, keep="\n"), err=err)


def row(*cells: object) -> None:
    """Print cells with tabs between them."""
    click.echo("\t".join(plain(str(cell)) for cell in cells))

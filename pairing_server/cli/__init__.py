"""The commands. Each reads the configuration, does one thing, and reports an error as a plain message."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from pairing_server.cli.audit.commands import audit
from pairing_server.cli.audit.seals import key, rebase, verify
from pairing_server.cli.backup import backup, restore
from pairing_server.cli.completion import completion
from pairing_server.cli.doctor.command import doctor
from pairing_server.cli.downgrade import downgrade
from pairing_server.cli.epilog import epilog
from pairing_server.cli.keys import keys
from pairing_server.cli.lockouts import lockouts
from pairing_server.cli.logins import login
from pairing_server.cli.output import say
from pairing_server.cli.serve import config, migrate, serve
from pairing_server.cli.status import status
from pairing_server.cli.users import token, user
from pairing_server.server.backend import app_version


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog(
        {
            "pairing-server serve": "start, with an embedded PostgreSQL",
            "pairing-server doctor": "do a whole pairing against it, as two devices would",
            "pairing-server user add alice": "make an account where registration is closed",
        },
        "docs/operations.md, Operating the server",
    ),
)
@click.version_option(app_version(), prog_name="pairing-server")
def cli() -> None:
    """Pairs a desktop and a phone by a six-digit code and relays their messages.

    Settings come from PAIRING_* of the environment, from `.env`, or from credential files;
    `pairing-server config` shows them.
    """


for command in (serve, migrate, downgrade, config, doctor, status, backup, restore, completion):
    cli.add_command(command)

for command in (user, token, login, lockouts, keys, audit):
    cli.add_command(command)

for command in (key, verify, rebase):
    audit.add_command(command)


def main() -> None:
    """The console script. Exits with 1 after a failure, 2 after a wrong use, 130 after Ctrl-C."""
    _open_streams()
    try:
        _check_text(sys.argv[1:])
        # Without standalone mode, click returns the status of `ctx.exit`.
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue().removesuffix("\n"), err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Aborted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        say(f"Error: {place}{error.strerror or error}", err=True)
        sys.exit(1)


def _open_streams() -> None:
    """A standard stream that is closed is /dev/null: otherwise the next file or connection would take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _check_text(arguments: Sequence[str]) -> None:
    """Raises UsageError for an argument that is no text: neither the database nor the output could take it."""
    for argument in arguments:
        if not argument.isascii():
            try:
                argument.encode()
            except UnicodeEncodeError:
                raise click.UsageError(f"The argument {argument} is not text in UTF-8.") from None

"""lockouts …: list and lift lock-outs."""

from __future__ import annotations

import click

from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import row, say
from pairing_server.cli.runtime import administrator, run
from pairing_server.clock import utcnow
from pairing_server.services import lockouts as service

_LOCKOUTS = "docs/operations.md, Lock-outs"


@click.group(
    epilog=epilog(
        {
            "pairing-server lockouts list": "kind, user or address, until when, how often in a row",
            "pairing-server lockouts lift login_user alice": "alice may try again at once",
        },
        _LOCKOUTS,
    )
)
def lockouts() -> None:
    """Users and addresses that must wait after too many failures: list, lift.

    Lock-outs end by themselves. They do not end logins or connections.
    """


@lockouts.command(
    "list", epilog=epilog({"pairing-server lockouts list": "tabs are between the columns"}, _LOCKOUTS)
)
def list_lockouts() -> None:
    """Kind, user or address, until when, how often in a row."""
    found = run(lambda backend: backend.services.lockouts.list_all(administrator(utcnow())))
    if not found:
        say("There are no lock-outs.", err=True)
    for lockout in found:
        row(lockout.kind, lockout.key, f"{lockout.until:%Y-%m-%dT%H:%M:%SZ}", lockout.level)


@lockouts.command(
    epilog=epilog(
        {
            "pairing-server lockouts lift redeem_address 203.0.113.9": "an address that guessed codes",
            "pairing-server lockouts lift redeem_alarm all": "an alarm that was false",
        },
        _LOCKOUTS,
    )
)
@click.argument("kind", type=click.Choice(sorted(service.KINDS)))
@click.argument("key")
def lift(kind: str, key: str) -> None:
    """Let a user or address try again at once; KIND and KEY are those of the list."""
    run(lambda backend: backend.services.lockouts.lift(administrator(utcnow()), kind, key))
    say(f"{key} may try again.")

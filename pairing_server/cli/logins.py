"""login …: an administrator lists and ends logins."""

from __future__ import annotations

import click

from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import row, say
from pairing_server.cli.runtime import administrator, run
from pairing_server.clock import utcnow
from pairing_server.server.backend import Backend

_LEAKED = "docs/operations.md, If a token or a key has leaked"


@click.group(
    epilog=epilog(
        {
            "pairing-server login list --user alice": "the logins of alice",
            "pairing-server login revoke --user alice": "end all of them",
        },
        _LEAKED,
    )
)
def login() -> None:
    """Logins of users: list, revoke."""


@login.command(
    "list",
    epilog=epilog(
        {
            "pairing-server login list": "of all users",
            "pairing-server login list --user 'https://id.example|4711'": "a user of another issuer",
        },
        "docs/operations.md, Accounts",
    ),
)
@click.option("--user", help="Of this user only: a name, an id, or issuer|sub.")
def list_logins(user: str | None) -> None:
    """The logins that have not ended, newest first: id, subject, since, last used, address."""
    found = run(lambda backend: backend.services.logins.list_of(user, utcnow()))
    if not found:
        say("There are no logins.", err=True)
    for one in found:
        since, used = f"{one.created_at:%Y-%m-%dT%H:%MZ}", f"{one.seen_at:%Y-%m-%dT%H:%MZ}"
        row(one.login_id, one.subject, since, used, one.address or "-")


@login.command(
    epilog=epilog(
        {
            "pairing-server login revoke 0b6f3a52-6f0e-4c6e-9a53-0d3c5c1d7f10": "one login, by its id",
            "pairing-server login revoke --user alice": "all logins of alice",
            "pairing-server login revoke --token T-17 --issuer https://id.example": "one token, by its jti",
        },
        _LEAKED,
    )
)
@click.argument("login_id", required=False)
@click.option("--user", help="All logins of this user: a name, an id, or issuer|sub.")
@click.option("--token", "token_id", help="One token, by its `jti`.")
@click.option("--issuer", help="With --token: the foreign issuer that made it.")
def revoke(login_id: str | None, user: str | None, token_id: str | None, issuer: str | None) -> None:
    """End a login: its tokens are refused and its connections closed, on every server within two seconds."""
    if sum(given is not None for given in (login_id, user, token_id)) != 1:
        raise click.UsageError("Give one of: a login's id (see: pairing-server login list), --user, --token.")
    if issuer is not None and token_id is None:
        raise click.UsageError("--issuer goes with --token.")

    async def work(backend: Backend) -> str:
        logins, admin = backend.services.logins, administrator(utcnow())
        if user is not None:
            subject, count = await logins.revoke_user(admin, user)
            if not count:
                raise click.ClickException(
                    f"{subject} has no login that is known here, so none has ended. Check the spelling; see:"
                    " pairing-server login list. Tokens of that user from before now are refused all the same."
                )
            return f"All logins of {subject} are ended: {count}."
        if token_id is not None:
            if not await logins.revoke_token(admin, token_id, issuer):
                raise click.ClickException(f"The token {token_id} was refused already. Nothing has changed.")
            return f"The token {token_id} is refused from now on."
        ended = await logins.revoke_login(admin, login_id or "")
        return f"The login {login_id} of {', '.join(one.subject for one in ended)} is ended."

    say(run(work))

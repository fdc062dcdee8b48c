"""user …, token …: accounts and their access tokens."""

from __future__ import annotations

import click

from pairing_server.cli.epilog import epilog
from pairing_server.cli.output import row, say
from pairing_server.cli.runtime import administrator, read_password, run
from pairing_server.clock import utcnow
from pairing_server.services import accounts
from pairing_server.text import plain

_ROLE = click.Choice(accounts.ROLES)
_ACCOUNTS = "docs/operations.md, Accounts"


@click.group(
    epilog=epilog(
        {
            "pairing-server user add alice": "asks for the password",
            "pairing-server user list": "name, role, enabled or not, since, id",
        },
        _ACCOUNTS,
    )
)
def user() -> None:
    """Accounts: add, list, disable, enable, delete, set-password, set-role.

    Users of other issuers (PAIRING_ISSUERS) have no account here.
    """


@user.command(
    epilog=epilog(
        {
            "pairing-server user add alice": "asks for the password",
            "pairing-server user add rita --role auditor < password.txt": "for scripts: one line is read",
        },
        _ACCOUNTS,
    )
)
@click.argument("name")
@click.option("--role", type=_ROLE, default="user", show_default=True)
def add(name: str, role: str) -> None:
    """Make an account. The password is asked for, or read from standard input.

    An auditor may also read the audit log; an admin may also end the logins of others and lift lock-outs.
    """
    password = read_password(confirm=True)
    made = run(
        lambda backend: backend.services.accounts.add_user(administrator(utcnow()), name, password, role)
    )
    say(f"Added {name} ({role}), id {made.subject}.")


@user.command(
    "list",
    epilog=epilog(
        {
            "pairing-server user list": "tabs are between the columns",
            "pairing-server user list | cut -f 1": "the names only",
        },
        _ACCOUNTS,
    ),
)
def list_users() -> None:
    """All accounts, by name."""
    found = run(lambda backend: backend.services.accounts.list_users())
    if not found:
        say("There are no accounts yet; make one with: pairing-server user add NAME", err=True)
    for account in found:
        status = "disabled" if account.disabled_at else "enabled"
        row(account.username, account.role, status, f"{account.created_at:%Y-%m-%d}", account.id)


def _set_disabled(name: str, disabled: bool) -> None:
    changed = run(
        lambda backend: backend.services.accounts.set_disabled(administrator(utcnow()), name, disabled)
    )
    word = "disabled" if disabled else "enabled"
    if not changed:
        raise click.ClickException(f"{name} was {word} already. Nothing has changed.")
    say(f"{name} is {word}.")


@user.command(
    epilog=epilog(
        {"pairing-server user disable alice": "closes the connections of alice within two seconds"}, _ACCOUNTS
    )
)
@click.argument("name")
def disable(name: str) -> None:
    """Refuse the account's logins and tokens from now on.

    Its connections are closed on every server. Nothing is deleted; `user enable` reverses it.
    """
    _set_disabled(name, True)


@user.command(epilog=epilog({"pairing-server user enable alice": "alice may log in again"}, _ACCOUNTS))
@click.argument("name")
def enable(name: str) -> None:
    """Let a disabled account log in again."""
    _set_disabled(name, False)


@user.command(
    epilog=epilog(
        {
            "pairing-server user delete alice": "asks once more",
            "pairing-server user delete --yes alice": "for scripts",
            "pairing-server user delete --yes 'https://id.example|sub'": "what is kept here of a foreign issuer's user",
        },
        "docs/operations.md, Erasing a user",
    )
)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Delete the account and all that belongs to it: pairings, settings, sessions, logins.

    Its connections are closed on every server. It cannot be undone. What the audit log has recorded stays until its
    retention ends; it names the user by an id only.
    """
    if not yes:
        click.confirm(f"Delete {plain(name)} and all that belongs to it?", abort=True)
    gone = run(lambda backend: backend.services.erasure.erase(administrator(utcnow()), name))
    what = f"{name} is deleted" if gone.account else f"What was kept of {name} is deleted"
    say(f"{what}. Logins ended: {gone.logins}, pairings: {gone.pairings}.")


@user.command(
    "set-password",
    epilog=epilog(
        {
            "pairing-server user set-password alice": "ends all logins made with the old one",
            "pairing-server user set-password alice < password.txt": "for scripts: one line is read",
        },
        "docs/operations.md, If a token or a key has leaked",
    ),
)
@click.argument("name")
def set_password(name: str) -> None:
    """Set a new password; it is asked for, or read from standard input. All logins of the account end."""
    password = read_password(confirm=True)
    ended = run(
        lambda backend: backend.services.accounts.set_password(administrator(utcnow()), name, password)
    )
    say(f"{name} has a new password. Logins ended: {ended}.")


@user.command(
    "set-role",
    epilog=epilog(
        {"pairing-server user set-role alice auditor": "alice may read the audit log from now on"}, _ACCOUNTS
    ),
)
@click.argument("name")
@click.argument("role", type=_ROLE)
def set_role(name: str, role: str) -> None:
    """Make the account a user, an auditor (reads the audit log) or an admin."""
    changed = run(lambda backend: backend.services.accounts.set_role(administrator(utcnow()), name, role))
    if not changed:
        raise click.ClickException(f"The role of {name} was {role} already. Nothing has changed.")
    say(f"{name} is {role} now.")


@click.group(epilog=epilog({"pairing-server token issue alice --ttl 3600": "good for an hour"}, _ACCOUNTS))
def token() -> None:
    """Access tokens for scripts, which cannot log in with a password."""


@token.command(
    epilog=epilog(
        {
            "pairing-server token issue alice": "good for a day",
            'curl -H "Authorization: Bearer $(pairing-server token issue alice --ttl 60)" http://127.0.0.1:8089/api/pairings': "at once",
        },
        _ACCOUNTS,
    )
)
@click.argument("name")
@click.option("--ttl", type=click.IntRange(60, 86400), default=86400, show_default=True, help="Seconds.")
def issue(name: str, ttl: int) -> None:
    """Print an access token of the account NAME.

    It gives all rights of the account until it expires. `login revoke` and `user disable` end it earlier.
    """
    issued = run(
        lambda backend: backend.services.authentication.issue_access_token(administrator(utcnow()), name, ttl)
    )
    say(issued.token)

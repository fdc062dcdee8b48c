"""login …: logins from the command line, while the server runs."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext
from pairing_server.security.keys import parse_keys
from pairing_server.store import users
from pairing_server.store.users import User
from tests.cli.commands import Operator
from tests.conftest import StartNode
from tests.devices import Account, Site

KEYS = f"k1:{'s' * 32}"
PASSWORD = "correct horse battery"


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node(timers=True, jwt_keys=parse_keys(KEYS))


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path)


async def login(site: Site, account: Account) -> tuple[Account, str]:
    """A login of the user, and its id."""
    caller = RequestContext(utcnow(), address="203.0.113.9")
    issued = await site.node.services.authentication.issue_access_token(
        caller.at(utcnow()), account.username, None
    )
    return Account(account.subject, account.username, issued.token), issued.login_id


async def test_logins_are_listed_and_revoked_and_their_connections_closed(
    site: Site, operator: Operator
) -> None:
    ada, grace = await site.account("ada"), await site.account("grace")
    (first, first_id), (second, second_id) = await login(site, ada), await login(site, ada)
    other, other_id = await login(site, grace)
    listed = [line.split("\t") for line in operator.says("login", "list").splitlines()]
    assert [row[:2] for row in listed] == [
        [other_id, grace.subject],
        [second_id, ada.subject],
        [first_id, ada.subject],
    ]
    assert {row[4] for row in listed} == {"203.0.113.9"}
    assert len(operator.says("login", "list", "--user", "ada").splitlines()) == 2
    one, two, three = (
        await site.connect(first, "desktop"),
        await site.connect(second, "mobile"),
        await site.connect(other, "desktop"),
    )
    assert operator.says("login", "revoke", first_id) == f"The login {first_id} of {ada.subject} is ended.\n"
    # The running server learns it by itself.
    assert await one.closed() == 4401
    assert await two.pending() == []
    told = operator.says("login", "revoke", "--user", ada.subject)
    assert told.startswith(f"All logins of {ada.subject} are ended: ")
    assert await two.closed() == 4401
    assert await three.pending() == []
    claims = await site.node.backend.tokens.verify_access(other.token, utcnow())
    operator.says("login", "revoke", "--token", claims.token_id)
    assert "was refused already" in operator.refuses("login", "revoke", "--token", claims.token_id)
    assert operator.says("login", "list").split("\t")[0] == other_id


async def test_a_disabled_account_loses_its_connections_and_a_new_password_all_logins(
    site: Site, operator: Operator
) -> None:
    ada, grace = await site.account("ada"), await site.account("grace")
    one, two = await site.connect(ada, "desktop"), await site.connect(grace, "desktop")
    operator.says("user", "disable", "ada")
    assert await one.closed() == 4401
    operator.says("user", "set-password", "grace", stdin="correct horse battery")
    assert await two.closed() == 4401


def test_what_is_not_there_is_said_with_the_way_to_the_list(operator: Operator) -> None:
    assert "There are no logins." in operator.run("login", "list").err
    assert "pairing-server login list" in operator.refuses("login", "revoke", "nobody")
    assert "pairing-server user list" in operator.refuses("login", "revoke", "--user", "nobody")


async def older_account(site: Site, name: str) -> Account:
    """An account of that name, as an older release took it, with a login."""
    user = User(uuid4(), name, "user", utcnow(), None)
    async with site.node.database.transaction() as conn:
        assert await users.add(conn, user, await site.node.services.accounts.passwords.hash(PASSWORD))
    account, _ = await login(site, Account(user.subject, name, ""))
    return account


async def test_all_logins_of_an_older_account_with_the_name_of_a_foreign_user_are_ended(
    site: Site, operator: Operator
) -> None:
    account = await older_account(site, "https://id.example|4711")
    socket = await site.connect(account, "desktop")
    told = operator.says("login", "revoke", "--user", account.username)
    assert told == f"All logins of {account.subject} are ended: 1.\n"
    assert await socket.closed() == 4401
    assert (await site.get("/api/pairings", account.token)).status == 401


async def test_a_name_that_is_the_id_of_another_account_ends_the_logins_of_neither(
    site: Site, operator: Operator
) -> None:
    ada = await site.account("ada")
    impostor = await older_account(site, ada.subject)
    told = operator.refuses("login", "revoke", "--user", ada.subject)
    assert "names two users" in told
    assert ada.subject in told
    assert impostor.subject in told
    operator.says("login", "revoke", "--user", impostor.subject)
    await site.node.services.logins.poll_revocations(utcnow())
    assert (await site.get("/api/pairings", impostor.token)).status == 401
    assert (await site.get("/api/pairings", ada.token)).status == 200


async def test_to_end_the_logins_of_a_user_who_has_none_is_no_success(site: Site, operator: Operator) -> None:
    ada, _ = await login(site, await site.account("ada"))
    assert operator.says("login", "revoke", "--user", "ada").endswith(" are ended: 1.\n")
    told = operator.refuses("login", "revoke", "--user", "ada")
    assert f"{ada.subject} has no login that is known here" in told
    await site.node.services.logins.poll_revocations(utcnow())
    assert (await site.get("/api/pairings", ada.token)).status == 401


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--user", "https://id.example|4711"), "trusts no issuer 'https://id.example'"),
        (("--token", "t1", "--issuer", "https://id.example"), "trusts no issuer 'https://id.example'"),
        (("--token", f"eyJhbGciOiJIUzI1NiJ9.{'e' * 200}.abc"), "Give the token's `jti`"),
        (("--token", "\n"), "Give the token's `jti`"),
        (("--token", ""), "Give the token's `jti`"),
        (("--user", ""), "There is no user ''"),
    ],
)
def test_what_can_end_nothing_is_refused(operator: Operator, arguments: tuple[str, ...], told: str) -> None:
    assert told in operator.refuses("login", "revoke", *arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Give one of"),
        (("l1", "--user", "ada"), "Give one of"),
        (("--user", "ada", "--token", "t1"), "Give one of"),
        (("l1", "--issuer", "https://a.example"), "--issuer goes with --token."),
    ],
)
def test_a_wrong_use_is_explained_and_exits_with_2(
    operator: Operator, arguments: tuple[str, ...], told: str
) -> None:
    assert f"Error: {told}" in operator.refuses("login", "revoke", *arguments, status=2)

"""A login that ends while its connection is opened, refreshed or acts: the connection does not stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext, system
from pairing_server.security.tokens import WsClaims
from pairing_server.store import logins, users
from pairing_server.store.logins import USER, Revocation
from pairing_server.websocket.commands import COMMANDS
from tests.conftest import StartNode
from tests.devices import Account, Site

SERVED: Mapping[str, Mapping[str, Any]] = {
    "identify": {"device_type": "desktop", "session_id": "another-session"},
    "join_channel": {"channel": "pair-000000", "session_id": "another-session"},
    "unpair": {},
    "pairing_confirm": {},
    "pairing_reject": {},
    "refresh_token": {},
}


def test_the_list_has_every_message_that_services_handle_but_leaving() -> None:
    served = {c.struct.__struct_config__.tag for c in COMMANDS.by_struct.values() if c.serve is not None}
    assert served == {*SERVED, "leave_channel"}


async def end(site: Site, account: Account, *, disabled: bool) -> None:
    """In the database alone."""
    async with site.node.database.transaction() as conn:
        if disabled:
            user_id = users.id_of(account.subject)
            assert user_id is not None
            await users.set_disabled(conn, user_id, utcnow())
        else:
            now = utcnow()
            await logins.revoke(conn, Revocation(USER, "pairing-server", account.subject, now, now))


@pytest.mark.one_node
@pytest.mark.parametrize("disabled", [True, False])
@pytest.mark.parametrize("type_", sorted({*SERVED} - {"refresh_token"}))
async def test_every_message_that_needs_the_login_is_refused_and_the_connection_closed(
    site: Site, type_: str, disabled: bool
) -> None:
    account = await site.account()
    if type_ in ("identify", "join_channel"):
        socket = await site.connect(account, "desktop")
    else:
        desktop, _ = await site.pair(account)
        socket = desktop.socket
    await end(site, account, disabled=disabled)
    socket.send({"type": type_, **SERVED[type_]})
    assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert await socket.closed() == 4401
    *_, rejected = await site.events("auth.token_rejected")
    assert (rejected["reason"], rejected["kind"]) == ("disabled" if disabled else "revoked", "ws")


class EndsMeanwhile:
    """Ends a ws token's login while the token is used up."""

    def __init__(self, site: Site) -> None:
        self._service = site.node.services.logins

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def spend(self, context: RequestContext, claims: WsClaims) -> None:
        await self._service.spend(context, claims)
        await self._service.revoke_login(system(utcnow()), claims.login_id)


@pytest.fixture
def single_use(start_node: StartNode) -> Site:
    return start_node(ws_token_single_use=True)


async def test_a_login_that_ends_while_its_socket_is_opened_leaves_none_open(single_use: Site) -> None:
    site = single_use
    account = await site.account()
    token = await site.ws_token(account, "desktop")
    site.use(logins=EndsMeanwhile(site))
    socket = await site.open(token)
    assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert await socket.closed() == 4401
    assert not site.node.hub.connections


async def test_a_login_that_ends_while_its_token_is_refreshed_leaves_no_socket_open(
    single_use: Site,
) -> None:
    """The token is of another login, so that the connection itself is not closed by that end."""
    site = single_use
    account = await site.account()
    socket = await site.connect(account, "desktop")
    issued = site.node.backend.tokens.issue_access(account.subject, utcnow())
    other = Account(account.subject, account.username, issued.token)
    fresh = await site.ws_token(other, "desktop")
    site.use(logins=EndsMeanwhile(site))
    socket.send({"type": "refresh_token", "token": fresh})
    assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert await socket.closed() == 4401


@pytest.mark.one_node
async def test_a_connection_acts_with_the_login_of_its_newest_token(site: Site) -> None:
    account = await site.account()
    socket = await site.connect(account, "desktop")
    issued = site.node.backend.tokens.issue_access(account.subject, utcnow())
    other = Account(account.subject, account.username, issued.token)
    socket.send({"type": "refresh_token", "token": await site.ws_token(other, "desktop")})
    await socket.expect("token_refreshed")
    await site.post("/api/auth/logout", {}, account.token)
    socket.send({"type": "identify", **SERVED["identify"]})
    await socket.expect("identified")


@pytest.mark.one_node
async def test_a_refused_token_alone_does_not_close_the_connection(site: Site) -> None:
    account = await site.account()
    socket = await site.connect(account, "desktop")
    issued = site.node.backend.tokens.issue_access(account.subject, utcnow())
    other = Account(account.subject, account.username, issued.token)
    revoked = await site.ws_token(other, "desktop")
    await site.post("/api/auth/logout", {}, other.token)
    socket.send({"type": "refresh_token", "token": revoked})
    assert (await socket.error())["code"] == "INVALID_TOKEN"
    assert await socket.pending() == []

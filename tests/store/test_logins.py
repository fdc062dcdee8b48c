"""Logins at rest: using one, and what it is used for."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from tornado.ioloop import IOLoop

from pairing_server.db.tables import audit_events, logins
from pairing_server.request_context import RequestContext
from pairing_server.security.issuers import OWN_ISSUER
from pairing_server.store import logins as store
from pairing_server.store import users
from pairing_server.store.audit_events import Event
from pairing_server.store.logins import LOGIN, TOKEN, USER, Login, Revocation
from pairing_server.store.users import User
from tests.store.rows import NOW, fetch_on, seconds

ALICE = User(uuid4(), "alice", "user", NOW, None)
CALLER = RequestContext(NOW, ALICE.subject, "login-1", token_id="token-1", logged_in_at=NOW)
USED = Login(ALICE.subject, "login-1", NOW, NOW + seconds(3600), NOW + seconds(5), "192.0.2.1")


def told() -> Event:
    return Event(
        uuid4(), "auth.token_issued", 6, "success", NOW, "node", "0", "user", actor_subject=ALICE.subject
    )


@pytest.fixture(autouse=True)
def account(io_loop: IOLoop, conn: AsyncConnection) -> None:
    assert io_loop.run_sync(lambda: users.add(conn, ALICE, "none"))


async def use(conn: AsyncConnection, event: Event, *, twice: bool = False) -> str | None:
    """`twice`: the answer to the first was lost, so it is sent again."""
    return await store.use(fetch_on(conn, lost=twice), USED, store.caller(CALLER), event)


async def recorded(conn: AsyncConnection, event: Event) -> int:
    counted = select(func.count()).where(audit_events.c.event_id == event.event_id)
    return (await conn.execute(counted)).scalar_one()


async def seen(conn: AsyncConnection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await conn.execute(select(logins.c.login_id, logins.c.seen_at))]


async def test_the_use_of_a_login_is_noted_and_recorded_together(conn: AsyncConnection) -> None:
    for _ in range(2):
        event = told()
        assert await use(conn, event) is None
        assert await recorded(conn, event) == 1
    assert await seen(conn) == [("login-1", USED.seen_at)]


async def test_a_statement_sent_again_is_recorded_once(conn: AsyncConnection) -> None:
    event = told()
    assert await use(conn, event, twice=True) is None
    assert await recorded(conn, event) == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [(LOGIN, "login-1"), (TOKEN, "token-1"), (USER, ALICE.subject)],
    ids=["login", "token", "user"],
)
async def test_a_revoked_login_is_not_used_and_nothing_is_recorded(
    conn: AsyncConnection, kind: str, name: str
) -> None:
    await store.revoke(conn, Revocation(kind, "another", name, NOW, USED.expires_at))
    assert await use(conn, told()) is None, "another issuer's"
    await store.revoke(conn, Revocation(kind, OWN_ISSUER, name, NOW, USED.expires_at))
    event = told()
    assert await use(conn, event) == await store.refusal_of(conn, CALLER) == "revoked"
    assert await recorded(conn, event) == 0


async def test_a_login_made_after_all_of_the_user_were_ended_is_used(conn: AsyncConnection) -> None:
    before = NOW - seconds(1)
    await store.revoke(conn, Revocation(USER, OWN_ISSUER, ALICE.subject, before, USED.expires_at))
    assert await use(conn, told()) is await store.refusal_of(conn, CALLER) is None


async def test_the_login_of_an_account_that_is_disabled_or_gone_is_not_used(conn: AsyncConnection) -> None:
    await users.set_disabled(conn, ALICE.id, NOW)
    event = told()
    assert await use(conn, event) == "disabled"
    assert await recorded(conn, event) == 0
    for subject in (ALICE.subject, str(uuid4()), "no id of an account"):
        assert await store.refusal_of(conn, replace(CALLER, subject=subject)) == "disabled"


async def test_a_foreign_login_has_no_account_and_is_revoked_by_its_issuer(conn: AsyncConnection) -> None:
    theirs = replace(CALLER, subject="https://id.example|alice")
    assert await store.refusal_of(conn, theirs) is None
    await store.revoke(conn, Revocation(LOGIN, OWN_ISSUER, "login-1", NOW, USED.expires_at))
    assert await store.refusal_of(conn, theirs) is None
    await store.revoke(conn, Revocation(LOGIN, "https://id.example", "login-1", NOW, USED.expires_at))
    assert await store.refusal_of(conn, theirs) == "revoked"

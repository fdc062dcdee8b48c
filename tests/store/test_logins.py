"""Logins at rest: using one, and what it is used for."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import audit_events, logins
from pairing_server.store import logins as store
from pairing_server.store import users
from pairing_server.store.audit_events import Event
from pairing_server.store.logins import LOGIN, TOKEN, USER, Login, LoginUse, Revocation
from pairing_server.store.users import User
from tests.store.rows import NOW, fetch_on, seconds

USED = Login("alice", "login-1", NOW, NOW + seconds(3600), NOW + seconds(5), "192.0.2.1")


def told() -> Event:
    return Event(uuid4(), "auth.token_issued", 6, "success", NOW, "node", "0", "user", actor_subject="alice")


async def use(
    conn: AsyncConnection, event: Event, account: UUID | None = None, *, twice: bool = False
) -> bool:
    """`twice`: the answer to the first was lost, so it is sent again."""

    return await store.use(fetch_on(conn, lost=twice), LoginUse(USED, "own", "token-1", account), event)


async def recorded(conn: AsyncConnection, event: Event) -> int:
    counted = select(func.count()).where(audit_events.c.event_id == event.event_id)
    return (await conn.execute(counted)).scalar_one()


async def seen(conn: AsyncConnection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await conn.execute(select(logins.c.login_id, logins.c.seen_at))]


async def test_the_use_of_a_login_is_noted_and_recorded_together(conn: AsyncConnection) -> None:
    for _ in range(2):
        event = told()
        assert await use(conn, event)
        assert await recorded(conn, event) == 1
    assert await seen(conn) == [("login-1", USED.seen_at)]


async def test_a_statement_sent_again_is_recorded_once(conn: AsyncConnection) -> None:
    event = told()
    assert await use(conn, event, twice=True)
    assert await recorded(conn, event) == 1


@pytest.mark.parametrize(("kind", "name"), [(LOGIN, "login-1"), (TOKEN, "token-1"), (USER, "alice")])
async def test_a_revoked_login_is_not_used_and_nothing_is_recorded(
    conn: AsyncConnection, kind: str, name: str
) -> None:
    await store.revoke(conn, Revocation(kind, "another", name, NOW, USED.expires_at))
    before = told()
    assert await use(conn, before), "another issuer's"
    await store.revoke(conn, Revocation(kind, "own", name, NOW, USED.expires_at))
    event = told()
    assert not await use(conn, event)
    assert await recorded(conn, event) == 0


async def test_a_login_made_after_all_of_the_user_were_ended_is_used(conn: AsyncConnection) -> None:
    await store.revoke(conn, Revocation(USER, "own", "alice", NOW - seconds(1), USED.expires_at))
    assert await use(conn, told())


async def test_the_login_of_an_account_that_is_disabled_or_gone_is_not_used(conn: AsyncConnection) -> None:
    user = User(uuid4(), "alice", "user", NOW, None)
    assert await users.add(conn, user, "none")
    assert await use(conn, told(), user.id)
    await users.set_disabled(conn, user.id, NOW)
    for account in (user.id, uuid4()):
        event = told()
        assert not await use(conn, event, account)
        assert await recorded(conn, event) == 0

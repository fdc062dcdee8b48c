"""Pairings in the database, for the tests of what the store does with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.raw_connection import Fetch
from pairing_server.db.tables import pairings
from pairing_server.request_context import RequestContext
from pairing_server.services.codes import Codes
from pairing_server.store import codes as store
from pairing_server.store import logins
from pairing_server.store.audit_events import Event
from pairing_server.store.codes import CodeRequest, CodeResult, Draw, RedeemRequest, RedeemResult
from pairing_server.store.pairings import Pairing, Seat

ENDED_STATES = ("closed", "expired", "superseded")
NODE = UUID(int=1)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CODES = Codes([b"current key"])
DESKTOP = Seat("desktop-1", "alice")
MOBILE = Seat("mobile-1", "alice")


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def draw(code: str, codes: Codes = CODES) -> Draw:
    macs = codes.macs(code)
    return Draw(macs[0], tuple(macs))


def event(name: str) -> Event:
    return Event(uuid4(), name, 6, "success", NOW, "node", "0", "device")


def fetch_on(conn: AsyncConnection, *, lost: bool = False) -> Fetch:
    """Statements for the driver, in the connection's transaction. `lost`: the first answer does not arrive."""

    async def fetch(statement: str, *values: object, again: str | None = None) -> asyncpg.Record | None:
        await conn.execute(text("SELECT 1"))  # begins the transaction, if this is its first statement
        driver = (await conn.get_raw_connection()).driver_connection
        assert driver is not None
        found: asyncpg.Record | None = await driver.fetchrow(statement, *values)
        return await driver.fetchrow(again or statement, *values) if lost else found

    return fetch


def caller_of(account: UUID | None) -> str | None:
    """The caller of that account, by a login that nothing is known of."""
    return None if account is None else logins.caller(RequestContext(NOW, str(account)))


async def ask(
    conn: AsyncConnection,
    draws: list[Draw],
    desktop: Seat = DESKTOP,
    now: datetime = NOW,
    *,
    account: UUID | None = None,
    most_waiting: int = 100,
    lost: bool = False,
) -> tuple[UUID, CodeResult]:
    """Ask for one of these codes, for 300 s: the pairing's id, and what came of it. `lost`: of the first answer."""
    pairing_id = uuid4()
    bound, made = event("session.bound"), event("pairing.code_created")
    wanted = CodeRequest(
        pairing_id, desktop, caller_of(account), now, now + seconds(300), most_waiting, bound, made
    )
    return pairing_id, await store.make(fetch_on(conn, lost=lost), wanted, draws)


async def make(
    conn: AsyncConnection, code: str, desktop: Seat = DESKTOP, codes: Codes = CODES
) -> UUID | None:
    """A pending pairing under that code for 300 s; None if the name is taken."""
    pairing_id, made = await ask(conn, [draw(code, codes)], desktop)
    return None if made.mac is None else pairing_id


async def type_in(
    conn: AsyncConnection,
    code: str,
    mobile: Seat = MOBILE,
    now: datetime = NOW,
    codes: Codes = CODES,
    *,
    same_user: bool = True,
    account: UUID | None = None,
    limits: tuple[tuple[str, str, str], ...] = (),
) -> RedeemResult:
    bound, won = event("session.bound"), event("pairing.redeem")
    typed = RedeemRequest(codes.macs(code), mobile, caller_of(account), now, same_user, limits, bound, won)
    return await store.redeem(fetch_on(conn), typed)


async def redeem(
    conn: AsyncConnection,
    code: str,
    mobile: Seat = MOBILE,
    now: datetime = NOW,
    codes: Codes = CODES,
    *,
    same_user: bool = True,
) -> Pairing | None:
    return (await type_in(conn, code, mobile, now, codes, same_user=same_user)).pairing


async def row_in(conn: AsyncConnection, state: str, code: str = "000001", desktop: Seat = DESKTOP) -> UUID:
    """A pairing in that state, whatever brought it there: everything in it happened at NOW."""
    redeemed = state in ("redeemed", "active", "waiting", "closed")
    ended = state in ENDED_STATES
    pairing_id = uuid4()
    values = {
        "id": pairing_id,
        "code_mac": CODES.macs(code)[0],
        "state": state,
        "desktop_session": desktop.session_id,
        "desktop_user": desktop.user,
        "mobile_session": MOBILE.session_id if redeemed else None,
        "mobile_user": MOBILE.user if redeemed else None,
        "created_at": NOW,
        "expires_at": NOW + seconds(300),
        "redeemed_at": NOW if redeemed else None,
        "seen_at": NOW,
        "ended_at": NOW if ended else None,
        "end_reason": "unpaired" if ended else None,
    }
    await conn.execute(insert(pairings).values(values))
    return pairing_id

"""Pairings at rest. Each change of state is one statement that still checks the state it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    LargeBinary,
    Uuid,
    and_,
    bindparam,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import LIVE_STATES, pairings
from pairing_server.store.nodes import RUNS

_LIVE = pairings.c.state.in_(LIVE_STATES)


@dataclass(frozen=True, slots=True)
class Seat:
    """One device's place in a pairing. `user` None: a guest's, until a join claims it."""

    session_id: str
    user: str | None


@dataclass(frozen=True, slots=True)
class Pairing:
    """`seen_at`: when a member was last seen in the channel; None: no device has joined yet."""

    id: UUID
    state: str
    desktop: Seat
    mobile: Seat | None
    created_at: datetime
    expires_at: datetime
    redeemed_at: datetime | None
    activated_at: datetime | None
    seen_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None

    def seat(self, role: str) -> Seat | None:
        return self.desktop if role == "desktop" else self.mobile

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


COLUMNS = tuple(
    pairings.c[
        *("id", "state", "desktop_session", "desktop_user", "mobile_session", "mobile_user", "created_at"),
        *("expires_at", "redeemed_at", "activated_at", "seen_at", "ended_at", "end_reason"),
    ]
)


def as_pairing(row: Sequence[object]) -> Pairing:
    """The pairing of a row of COLUMNS."""
    id_, state, desktop, desktop_user, mobile, mobile_user, *rest = row
    seat = None if mobile is None else Seat(mobile, mobile_user)  # type: ignore[arg-type]
    return Pairing(id_, state, Seat(desktop, desktop_user), seat, *rest)  # type: ignore[arg-type]


def _if_any(row: Sequence[object] | None) -> Pairing | None:
    return None if row is None else as_pairing(row)


async def by_code(conn: AsyncConnection, macs: Sequence[bytes]) -> Pairing | None:
    """The pairing that holds this code's name: live, or ended a moment ago."""
    statement = select(*COLUMNS).where(pairings.c.code_mac.in_(macs))
    return _if_any((await conn.execute(statement)).one_or_none())


async def by_id(conn: AsyncConnection, pairing_id: UUID) -> Pairing | None:
    """That pairing, live or ended."""
    return _if_any((await conn.execute(select(*COLUMNS).where(pairings.c.id == pairing_id))).one_or_none())


@dataclass(frozen=True, slots=True)
class Entering:
    """A device joins in its seat on the server `node`. `mac`: its code's under the current key, if it is to be kept under
    that from now on."""

    pairing_id: UUID
    role: str
    seat: Seat
    both_present: bool
    node: UUID
    mac: bytes | None = None


def not_elsewhere(node: UUID) -> ColumnElement[bool]:
    """Whether no other server that runs has the pairing's channel."""
    return or_(pairings.c.node.is_(None), pairings.c.node == node, text(f"NOT {RUNS}"))


async def is_elsewhere(conn: AsyncConnection, pairing_id: UUID, node: UUID) -> bool:
    """Whether another server that runs has the channel of that live pairing."""
    statement = select(pairings.c.id).where(
        pairings.c.id == pairing_id, pairings.c.ended_at.is_(None), ~not_elsewhere(node)
    )
    return (await conn.execute(statement)).one_or_none() is not None


async def enter(conn: AsyncConnection, device: Entering, now: datetime) -> Pairing | None:
    """Record that the seat's device joins, claiming a guest's seat; active once both are present.

    None if the pairing has ended, expired, the seat is not this one's any more, or the other device is elsewhere.
    """
    seat = device.seat
    session = pairings.c.desktop_session if device.role == "desktop" else pairings.c.mobile_session
    user = pairings.c.desktop_user if device.role == "desktop" else pairings.c.mobile_user
    may: ColumnElement[bool] = pairings.c.state.in_(("redeemed", "active", "waiting"))
    if device.role == "desktop":
        may = or_(may, and_(pairings.c.state == "pending", pairings.c.expires_at > now))
    joined, other = pairings.c.desktop_joined, pairings.c.mobile_joined
    if device.role == "mobile":
        joined, other = other, joined
    mine = pairings.c.node.is_not_distinct_from(device.node)
    values: dict[str, object] = {user.name: seat.user, "seen_at": now, "node": device.node}
    values |= {joined.name: True, other.name: and_(other, mine)}
    if device.mac is not None:
        values["code_mac"] = device.mac
    if device.both_present:
        values |= {"state": "active", "activated_at": func.coalesce(pairings.c.activated_at, now)}
    statement = (
        update(pairings)
        .where(
            pairings.c.id == device.pairing_id,
            may,
            session == seat.session_id,
            or_(user == seat.user, user.is_(None)),
            or_(~other, not_elsewhere(device.node)),
        )
        .values(values)
        .returning(*COLUMNS)
    )
    return _if_any((await conn.execute(statement)).one_or_none())


async def rename(conn: AsyncConnection, macs: Mapping[UUID, bytes]) -> None:
    """Keep the names of these pairings, as far as they are live, under other MACs."""
    given = (
        func.unnest(
            bindparam("ids", list(macs), ARRAY(Uuid)),
            bindparam("macs", list(macs.values()), ARRAY(LargeBinary)),
        )
        .table_valued("id", "mac")
        .render_derived()
    )
    await conn.execute(
        update(pairings)
        .where(pairings.c.id == given.c.id, pairings.c.ended_at.is_(None))
        .values(code_mac=given.c.mac)
    )


async def end(conn: AsyncConnection, pairing_id: UUID, reason: str, now: datetime) -> Pairing | None:
    """Close a live pairing for good. None if it was not live any more."""
    statement = (
        update(pairings)
        .where(pairings.c.id == pairing_id, pairings.c.ended_at.is_(None), _LIVE)
        .values(state="closed", ended_at=now, end_reason=reason)
        .returning(*COLUMNS)
    )
    return _if_any((await conn.execute(statement)).one_or_none())


async def end_overdue(
    conn: AsyncConnection, pairing_id: UUID, node: UUID, seen_until: datetime | None, now: datetime
) -> Pairing | None:
    """Close a live pairing whose device has been missing from this server's channel for too long.

    `seen_until`: when this server has seen it last, so that no other one may have seen it later; None if the other device is
    connected here. None if it was not live any more, was seen, or another server has it.
    """
    unseen = [] if seen_until is None else [pairings.c.seen_at <= seen_until]
    statement = (
        update(pairings)
        .where(
            pairings.c.id == pairing_id, pairings.c.ended_at.is_(None), _LIVE, not_elsewhere(node), *unseen
        )
        .values(state="closed", ended_at=now, end_reason="deserted")
        .returning(*COLUMNS)
    )
    return _if_any((await conn.execute(statement)).one_or_none())


def _belongs_to(user: str) -> ColumnElement[bool]:
    return or_(pairings.c.desktop_user == user, pairings.c.mobile_user == user)


async def live_of(conn: AsyncConnection, user: str, limit: int = 100) -> list[Pairing]:
    """The user's live pairings, newest first."""
    statement = (
        select(*COLUMNS)
        .where(_belongs_to(user), pairings.c.ended_at.is_(None))
        .order_by(pairings.c.created_at.desc())
        .limit(limit)
    )
    return [as_pairing(row) for row in await conn.execute(statement)]


async def unpaired_own(conn: AsyncConnection, pairing_id: UUID, user: str) -> Pairing | None:
    """That pairing, if it has this user on one of its sides and has been ended by `end_own`."""
    statement = select(*COLUMNS).where(
        pairings.c.id == pairing_id, _belongs_to(user), pairings.c.end_reason == "unpaired"
    )
    return _if_any((await conn.execute(statement)).one_or_none())


async def end_own(conn: AsyncConnection, pairing_id: UUID, user: str, now: datetime) -> Pairing | None:
    """Close a live pairing that has this user on one of its sides. None if there is none."""
    statement = (
        update(pairings)
        .where(pairings.c.id == pairing_id, _belongs_to(user), pairings.c.ended_at.is_(None))
        .values(state="closed", ended_at=now, end_reason="unpaired")
        .returning(*COLUMNS)
    )
    return _if_any((await conn.execute(statement)).one_or_none())

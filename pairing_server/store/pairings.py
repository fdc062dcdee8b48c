"""Pairings at rest. Each change of state is one statement that still checks the state it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.store.tables import LIVE_STATES, pairings

_LIVE = pairings.c.state.in_(LIVE_STATES)


@dataclass(frozen=True, slots=True)
class Seat:
    """One device's place in a pairing. `user` None: a guest's, until a join claims it."""

    session_id: str
    user: str | None


@dataclass(frozen=True, slots=True)
class Pairing:
    id: UUID
    state: str
    desktop: Seat
    mobile: Seat | None
    created_at: datetime
    expires_at: datetime
    redeemed_at: datetime | None
    activated_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None

    def seat(self, role: str) -> Seat | None:
        return self.desktop if role == "desktop" else self.mobile

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


_PAIRING = (
    pairings.c.id,
    pairings.c.state,
    pairings.c.desktop_session,
    pairings.c.desktop_user,
    pairings.c.mobile_session,
    pairings.c.mobile_user,
    pairings.c.created_at,
    pairings.c.expires_at,
    pairings.c.redeemed_at,
    pairings.c.activated_at,
    pairings.c.ended_at,
    pairings.c.end_reason,
)


def _pairing(row: Sequence[object] | None) -> Pairing | None:
    if row is None:
        return None
    id_, state, desktop, desktop_user, mobile, mobile_user, *rest = row
    seat = None if mobile is None else Seat(mobile, mobile_user)  # type: ignore[arg-type]
    return Pairing(id_, state, Seat(desktop, desktop_user), seat, *rest)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Draw:
    """A code that may be given out: its MAC under the current key, and under every key still in use."""

    mac: bytes
    macs: tuple[bytes, ...]


_ADD = text(
    """
    INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, created_at, expires_at)
    SELECT :id, drawn.mac, 'pending', :session, :user, :now, :expires_at
    FROM unnest(CAST(:macs AS bytea[])) WITH ORDINALITY AS drawn(mac, place)
    WHERE drawn.place <> ALL (
        SELECT known.place
        FROM unnest(CAST(:known_places AS bigint[]), CAST(:known_macs AS bytea[])) AS known(place, mac)
        JOIN pairings ON pairings.code_mac = known.mac
    )
    ORDER BY drawn.place
    LIMIT 1
    ON CONFLICT (code_mac) DO NOTHING
    RETURNING code_mac
    """
).bindparams(
    bindparam("id", type_=pairings.c.id.type),
    bindparam("user", type_=pairings.c.desktop_user.type),
    bindparam("now", type_=pairings.c.created_at.type),
    bindparam("expires_at", type_=pairings.c.expires_at.type),
)


async def add(
    conn: AsyncConnection,
    pairing_id: UUID,
    draws: Sequence[Draw],
    desktop: Seat,
    now: datetime,
    expires_at: datetime,
) -> bytes | None:
    """Make a pending pairing under the first of the drawn codes that is free. Its MAC, or None if none is.

    The names that are taken are looked up in the statement itself, so that drawing takes one
    statement however many there are. A name given out under a previous key is taken as well.
    """
    known = [(place, mac) for place, draw in enumerate(draws, 1) for mac in draw.macs]
    values = {
        "id": pairing_id,
        "session": desktop.session_id,
        "user": desktop.user,
        "now": now,
        "expires_at": expires_at,
        "macs": [draw.mac for draw in draws],
        "known_places": [place for place, _ in known],
        "known_macs": [mac for _, mac in known],
    }
    mac: bytes | None = (await conn.execute(_ADD, values)).scalar_one_or_none()
    return mac


async def pending_of(conn: AsyncConnection, user: str, but_session: str, now: datetime) -> int:
    """How many codes of this user wait, not counting that desktop session's, which it is about to replace."""
    statement = select(func.count()).where(
        pairings.c.desktop_user == user,
        pairings.c.ended_at.is_(None),
        pairings.c.state == "pending",
        pairings.c.desktop_session != but_session,
        pairings.c.expires_at > now,
    )
    return (await conn.execute(statement)).scalar_one()


async def count_live(conn: AsyncConnection) -> int:
    """How many pairings hold a name and are not ended."""
    return (await conn.execute(select(func.count()).where(pairings.c.ended_at.is_(None)))).scalar_one()


async def supersede_pending(conn: AsyncConnection, desktop: Seat, now: datetime) -> list[UUID]:
    """End the pending codes of this desktop session: it has asked for a new one."""
    statement = (
        update(pairings)
        .where(
            pairings.c.desktop_session == desktop.session_id,
            pairings.c.desktop_user.is_not_distinct_from(desktop.user),
            pairings.c.ended_at.is_(None),
            pairings.c.state == "pending",
        )
        .values(state="superseded", ended_at=now, end_reason="superseded")
        .returning(pairings.c.id)
    )
    return list((await conn.execute(statement)).scalars())


async def redeem(
    conn: AsyncConnection, macs: Sequence[bytes], mobile: Seat, now: datetime, *, same_user: bool
) -> Pairing | None:
    """Seat the mobile in the pending pairing that has this code, at most once.

    The winner's retry (same session, same user, still live) finds the seat it has. None for
    everybody else: the caller cannot tell an unknown code from an expired, used or foreign one, and
    neither can whoever is guessing.
    """
    admitted: ColumnElement[bool] = literal(True)
    if same_user:
        # An account's code is not for a guest, who cannot show that the account is his.
        admitted = pairings.c.desktop_user.is_(None)
        if mobile.user is not None:
            admitted = or_(admitted, pairings.c.desktop_user == mobile.user)
    waiting = and_(pairings.c.state == "pending", pairings.c.expires_at > now, admitted)
    retried = and_(
        pairings.c.state.in_(("redeemed", "active", "waiting")),
        pairings.c.mobile_session == mobile.session_id,
        pairings.c.mobile_user.is_not_distinct_from(mobile.user),
    )
    statement = (
        update(pairings)
        .where(pairings.c.code_mac.in_(macs), or_(waiting, retried))
        .values(
            state=case((pairings.c.state == "pending", "redeemed"), else_=pairings.c.state),
            mobile_session=mobile.session_id,
            mobile_user=mobile.user,
            redeemed_at=func.coalesce(pairings.c.redeemed_at, now),
        )
        .returning(*_PAIRING)
    )
    return _pairing((await conn.execute(statement)).one_or_none())


async def supersede_channels(conn: AsyncConnection, new: Pairing, now: datetime) -> list[UUID]:
    """End the other pairings of this pairing's desktop session: the new one has taken their place."""
    statement = (
        update(pairings)
        .where(
            pairings.c.desktop_session == new.desktop.session_id,
            pairings.c.desktop_user.is_not_distinct_from(new.desktop.user),
            pairings.c.ended_at.is_(None),
            pairings.c.state.in_(("redeemed", "active", "waiting")),
            pairings.c.id != new.id,
        )
        .values(state="superseded", ended_at=now, end_reason="superseded")
        .returning(pairings.c.id)
    )
    return list((await conn.execute(statement)).scalars())


async def by_code(conn: AsyncConnection, macs: Sequence[bytes]) -> Pairing | None:
    """The pairing that holds this code's name: live, or ended a moment ago."""
    statement = select(*_PAIRING).where(pairings.c.code_mac.in_(macs))
    return _pairing((await conn.execute(statement)).one_or_none())


async def enter(
    conn: AsyncConnection, pairing_id: UUID, role: str, seat: Seat, now: datetime, *, both_present: bool
) -> Pairing | None:
    """Record that the seat's device joins, claiming a guest's seat; active once both are present.

    None if the pairing has ended, expired, or the seat is not this one's any more.
    """
    session = pairings.c.desktop_session if role == "desktop" else pairings.c.mobile_session
    user = pairings.c.desktop_user if role == "desktop" else pairings.c.mobile_user
    may: ColumnElement[bool] = pairings.c.state.in_(("redeemed", "active", "waiting"))
    if role == "desktop":
        may = or_(may, and_(pairings.c.state == "pending", pairings.c.expires_at > now))
    values: dict[str, object] = {user.name: seat.user, "seen_at": now}
    if both_present:
        values |= {"state": "active", "activated_at": func.coalesce(pairings.c.activated_at, now)}
    statement = (
        update(pairings)
        .where(
            pairings.c.id == pairing_id,
            may,
            session == seat.session_id,
            or_(user == seat.user, user.is_(None)),
        )
        .values(values)
        .returning(*_PAIRING)
    )
    return _pairing((await conn.execute(statement)).one_or_none())


async def set_present(conn: AsyncConnection, ids: Sequence[UUID], state: str, now: datetime) -> None:
    """Note for live channels that both members ("active") or only one or none ("waiting") are connected.

    `seen_at` keeps the timers of other servers, and of this one after a crash, from ending them.
    """
    leaves = ("redeemed", "waiting", "active") if state == "active" else ("active", "waiting")
    values: dict[str, object] = {"state": state, "seen_at": now}
    if state == "active":
        values["activated_at"] = func.coalesce(pairings.c.activated_at, now)
    await conn.execute(
        update(pairings).where(pairings.c.id.in_(ids), pairings.c.state.in_(leaves)).values(values)
    )


async def end(conn: AsyncConnection, pairing_id: UUID, reason: str, now: datetime) -> Pairing | None:
    """Close a live pairing for good. None if it was not live any more."""
    statement = (
        update(pairings)
        .where(pairings.c.id == pairing_id, pairings.c.ended_at.is_(None), _LIVE)
        .values(state="closed", ended_at=now, end_reason=reason)
        .returning(*_PAIRING)
    )
    return _pairing((await conn.execute(statement)).one_or_none())


def _belongs_to(user: str) -> ColumnElement[bool]:
    return or_(pairings.c.desktop_user == user, pairings.c.mobile_user == user)


async def live_of(conn: AsyncConnection, user: str, limit: int = 100) -> list[Pairing]:
    """The user's live pairings, newest first."""
    statement = (
        select(*_PAIRING)
        .where(_belongs_to(user), pairings.c.ended_at.is_(None))
        .order_by(pairings.c.created_at.desc())
        .limit(limit)
    )
    return [found for row in await conn.execute(statement) if (found := _pairing(row))]


async def end_own(conn: AsyncConnection, pairing_id: UUID, user: str, now: datetime) -> Pairing | None:
    """Close a live pairing that has this user on one of its sides. None if there is none."""
    statement = (
        update(pairings)
        .where(pairings.c.id == pairing_id, _belongs_to(user), pairings.c.ended_at.is_(None))
        .values(state="closed", ended_at=now, end_reason="user")
        .returning(*_PAIRING)
    )
    return _pairing((await conn.execute(statement)).one_or_none())


_BATCH = 1000


def _batch(due: ColumnElement[bool]) -> Select[tuple[UUID]]:
    """At most a batch of the pairings that are due, locked; those another server has locked are left to it.

    A table expression, because PostgreSQL may evaluate a plain subquery again for each row, and then
    there is no limit.
    """
    found = select(pairings.c.id).where(due).limit(_BATCH).with_for_update(skip_locked=True).cte("batch")
    return select(found.c.id)


async def _end_where(
    conn: AsyncConnection, due: ColumnElement[bool], state: str, reason: str, now: datetime
) -> list[Pairing]:
    """End at most a batch."""
    statement = (
        update(pairings)
        .where(pairings.c.id.in_(_batch(due)), due)
        .values(state=state, ended_at=now, end_reason=reason)
        .returning(*_PAIRING)
    )
    return [found for row in await conn.execute(statement) if (found := _pairing(row))]


async def expire_pending(conn: AsyncConnection, now: datetime) -> list[Pairing]:
    """Expire a batch of codes whose time is over. What was expired."""
    due = and_(pairings.c.state == "pending", pairings.c.expires_at <= now)
    return await _end_where(conn, due, "expired", "expired", now)


async def close_never_active(conn: AsyncConnection, redeemed_until: datetime, now: datetime) -> list[Pairing]:
    """Close a batch of pairings that were redeemed but whose devices never met. What was closed."""
    due = and_(pairings.c.state == "redeemed", pairings.c.redeemed_at <= redeemed_until)
    return await _end_where(conn, due, "closed", "never_active", now)


async def close_deserted(conn: AsyncConnection, seen_until: datetime, now: datetime) -> list[Pairing]:
    """Close a batch of pairings that no server has seen a member of since then. What was closed."""
    due = and_(pairings.c.state.in_(("active", "waiting")), pairings.c.seen_at <= seen_until)
    return await _end_where(conn, due, "closed", "deserted", now)


async def release_names(conn: AsyncConnection, ended_until: datetime) -> int:
    """Let the codes of pairings that ended before then be drawn again. The number released."""
    due = and_(pairings.c.ended_at <= ended_until, pairings.c.code_mac.is_not(None))
    statement = update(pairings).where(pairings.c.id.in_(_batch(due))).values(code_mac=None)
    return (await conn.execute(statement)).rowcount


async def prune(conn: AsyncConnection, ended_until: datetime) -> int:
    """Forget pairings that ended before then. The number forgotten."""
    batch = _batch(pairings.c.ended_at <= ended_until)
    return (await conn.execute(delete(pairings).where(pairings.c.id.in_(batch)))).rowcount

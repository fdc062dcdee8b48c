"""Phones that wait for their desktop to confirm them, at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Update, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import confirmations, pairings
from pairing_server.store.pairings import Seat


@dataclass(frozen=True, slots=True)
class Request:
    """A phone wants the seat of a pairing whose code it has sent. `device` and `address` are for people."""

    pairing_id: UUID
    device: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Open:
    """A request that the desktop has not answered."""

    request: Request
    desktop: Seat
    expires_at: datetime


async def ask(conn: AsyncConnection, request: Request, mobile: Seat, now: datetime) -> tuple[Seat, bool]:
    """Whose request is waiting for this pairing from now on, and whether it is new: the first to ask keeps its place."""
    statement = insert(confirmations).values(
        pairing_id=request.pairing_id,
        mobile_session=mobile.session_id,
        mobile_user=mobile.user,
        device=request.device,
        address=request.address,
        asked_at=now,
    )
    row = (
        await conn.execute(
            statement.on_conflict_do_update(
                index_elements=[confirmations.c.pairing_id], set_={"pairing_id": confirmations.c.pairing_id}
            ).returning(
                confirmations.c.mobile_session, confirmations.c.mobile_user, confirmations.c.asked_at == now
            )
        )
    ).one()
    return Seat(row[0], row[1]), row[2]


async def confirm(
    conn: AsyncConnection, macs: Sequence[bytes], desktop: Seat, now: datetime
) -> Request | None:
    """Record that the desktop of the pending pairing wants that phone. None if there is nothing to confirm."""
    change = update(confirmations).where(confirmations.c.confirmed_at.is_(None)).values(confirmed_at=now)
    return await _answer(conn, change, _desktops(macs, desktop, now))


async def reject(
    conn: AsyncConnection, macs: Sequence[bytes], desktop: Seat, now: datetime
) -> Request | None:
    """End the pending pairing: another person knows its code. None if no phone waits for it."""
    change = update(pairings).values(state="closed", ended_at=now, end_reason="rejected")
    return await _answer(conn, change, _desktops(macs, desktop, now))


async def _answer(
    conn: AsyncConnection, change: Update, where: Sequence[ColumnElement[bool]]
) -> Request | None:
    statement = change.where(confirmations.c.pairing_id == pairings.c.id, *where)
    answered = statement.returning(
        confirmations.c.pairing_id, confirmations.c.device, confirmations.c.address
    )
    row = (await conn.execute(answered)).one_or_none()
    return None if row is None else Request(*row)


async def answered(
    conn: AsyncConnection, macs: Sequence[bytes], desktop: Seat, *, confirmed: bool
) -> UUID | None:
    """The pairing of this desktop that it has confirmed, or rejected, before. None if there is none."""
    as_before = (
        confirmations.c.confirmed_at.is_not(None) if confirmed else pairings.c.end_reason == "rejected"
    )
    statement = (
        select(pairings.c.id)
        .join(confirmations, confirmations.c.pairing_id == pairings.c.id)
        .where(*_of_desktop(macs, desktop), as_before)
    )
    return (await conn.execute(statement)).scalar_one_or_none()


def _desktops(macs: Sequence[bytes], desktop: Seat, now: datetime) -> Sequence[ColumnElement[bool]]:
    """What makes a pending pairing this desktop's."""
    return (
        *_of_desktop(macs, desktop),
        pairings.c.state == "pending",
        pairings.c.expires_at > now,
    )


def _of_desktop(macs: Sequence[bytes], desktop: Seat) -> Sequence[ColumnElement[bool]]:
    return (
        pairings.c.code_mac.in_(macs),
        pairings.c.desktop_session == desktop.session_id,
        pairings.c.desktop_user == desktop.user,
    )


async def unanswered(conn: AsyncConnection, now: datetime) -> list[Open]:
    """The requests that wait for an answer."""
    statement = (
        select(
            confirmations.c.pairing_id,
            confirmations.c.device,
            confirmations.c.address,
            pairings.c.desktop_session,
            pairings.c.desktop_user,
            pairings.c.expires_at,
        )
        .join(pairings, pairings.c.id == confirmations.c.pairing_id)
        .where(
            confirmations.c.confirmed_at.is_(None), pairings.c.state == "pending", pairings.c.expires_at > now
        )
    )
    return [
        Open(Request(id_, device, address), Seat(session, user), until)
        for id_, device, address, session, user, until in await conn.execute(statement)
    ]

"""Everything at rest that belongs to one user, apart from the audit log, to be deleted."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import attempts, confirmations, pairings, sessions, users
from pairing_server.store.users import id_of


@dataclass(frozen=True, slots=True)
class Deleted:
    """`account`: there was one here. `pairings`: those that were live. `rows`: all that was deleted."""

    account: bool
    pairings: int
    rows: int


async def delete_user(conn: AsyncConnection, subject: str) -> Deleted:
    """Delete the account, its device sessions, pairings (with their settings), requests to pair and counts of failures.

    Logins are not among it: store/logins.py. A trigger notes the pairings, so that their channels close.
    """
    own = or_(pairings.c.desktop_user == subject, pairings.c.mobile_user == subject)
    live = (await conn.execute(select(func.count()).where(own, pairings.c.ended_at.is_(None)))).scalar_one()
    gone = [
        await conn.execute(delete(confirmations).where(confirmations.c.mobile_user == subject)),
        await conn.execute(delete(pairings).where(own)),
        await conn.execute(delete(sessions).where(sessions.c.subject == subject)),
    ]
    counted = [and_(attempts.c.kind == "redeem_user", attempts.c.key == subject)]
    name = None
    if (user_id := id_of(subject)) is not None:
        statement = delete(users).where(users.c.id == user_id).returning(users.c.username_key)
        name = (await conn.execute(statement)).scalar_one_or_none()
    if name is not None:
        counted.append(and_(attempts.c.kind == "login_user", attempts.c.key == name))
    gone.append(await conn.execute(delete(attempts).where(or_(*counted))))
    account = name is not None
    return Deleted(account, live, account + sum(result.rowcount for result in gone))

"""A code that did not work: what it counts against, what is told, and what is recorded."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.raw_connection import RawConnection
from pairing_server.errors import InvalidCode, PairingServerError, RateLimited
from pairing_server.request_context import RequestContext
from pairing_server.security.limits import REDEEM_ADDRESS, REDEEM_USER
from pairing_server.services import confirmations, rate_limits
from pairing_server.services.accounts import lockout_event
from pairing_server.services.deps import Deps
from pairing_server.services.membership import conflict
from pairing_server.services.rate_limits import LimitKey, Lockout
from pairing_server.store.codes import Redeemed, Redeeming
from pairing_server.store.pairings import Seat


def limits_of(deps: Deps, context: RequestContext) -> list[LimitKey]:
    """Nobody but himself locks a user out of the codes of his own account, whoever else is behind his address.

    With `same_user` there are no others for him; the address's failures are counted all the same, for whoever
    comes without an account.
    """
    if context.subject is None:
        return [LimitKey("redeem_address", context.address_key, REDEEM_ADDRESS)]
    others = not deps.rules.same_user
    return [
        LimitKey("redeem_address", context.address_key, REDEEM_ADDRESS, binding=others, but_own=others),
        LimitKey("redeem_user", context.subject, REDEEM_USER),
    ]


async def refuse(
    deps: Deps,
    direct: RawConnection,
    found: Redeemed,
    typed: Redeeming,
    device: str,
    limits: Sequence[LimitKey],
    context: RequestContext,
) -> PairingServerError:
    """Count and record what came to nothing, under the locks it was decided under. The error to be raised."""
    mobile = typed.mobile
    if found.owner is not None and found.owner != mobile.user:
        return await conflict(deps, direct.conn, mobile.session_id, found.owner, context)
    counting = await rate_limits.hold(direct.conn, limits, context.now)
    seconds, kind = counting.wait(context.now)
    if seconds:
        await _record(deps, direct.conn, mobile, [], "locked", context)
        return RateLimited(seconds, "Too many wrong codes. Wait, then try again.", limit=kind)
    if typed.confirm:
        needed, new = await confirmations.ask(deps, direct.conn, typed.macs, mobile, device, context)
        if needed is not None:
            # Whoever guesses has hit, and is none the better for it; he may not go on for nothing.
            if new:
                lockouts = await counting.charge(context.now)
                await _record(deps, direct.conn, mobile, lockouts, "unconfirmed", context)
            return needed
    lockouts = await counting.charge(context.now)
    await _record(deps, direct.conn, mobile, lockouts, "no_such_code", context)
    return InvalidCode()


async def _record(
    deps: Deps,
    conn: AsyncConnection,
    mobile: Seat,
    lockouts: Sequence[Lockout],
    reason: str,
    context: RequestContext,
) -> None:
    failed = deps.audit.event(
        "pairing.redeem", "failure", context, reason=reason, mobile_session=mobile.session_id
    )
    await deps.audit.refuse(conn, failed)
    if lockouts:
        locked = [lockout_event(deps, lockout, context) for lockout in lockouts]
        await deps.audit.record(conn, *locked)

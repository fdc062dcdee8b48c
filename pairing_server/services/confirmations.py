"""While the alarm is on, a phone of another account gets its seat only once the desktop has confirmed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.errors import ConfirmationNeeded, InvalidChannel
from pairing_server.request_context import RequestContext
from pairing_server.services.codes import Codes
from pairing_server.services.deps import Deps
from pairing_server.store import confirmations as store
from pairing_server.store import pairings
from pairing_server.store.confirmations import Request
from pairing_server.store.pairings import Pairing, Seat

# Seconds after which a phone that waits asks again.
ASK_AGAIN = 2.0


async def ask(
    deps: Deps,
    conn: AsyncConnection,
    macs: Sequence[bytes],
    mobile: Seat,
    device: str,
    context: RequestContext,
) -> tuple[ConfirmationNeeded | None, bool]:
    """Put the phone's wish before the desktop whose code it has sent.

    The error to be raised, None if it would not get the seat anyway; and whether this is its first try.
    """
    pairing = await pairings.by_code(conn, macs)
    if not _may_be_asked(pairing, mobile, context.now, same_user=deps.rules.same_user) or pairing is None:
        return None, False
    request = Request(pairing.id, device or "unknown", context.address)
    waiting, new = await store.ask(conn, request, mobile, context.now)
    if waiting != mobile:
        return None, False
    left = round((pairing.expires_at - context.now).total_seconds())
    return ConfirmationNeeded(ASK_AGAIN, expires_in=left), new


def _may_be_asked(pairing: Pairing | None, mobile: Seat, now: datetime, *, same_user: bool) -> bool:
    """Whether this phone would get the seat, were it not for the confirmation."""
    if pairing is None or pairing.state != "pending" or pairing.expires_at <= now:
        return False
    owner = pairing.desktop.user
    return owner is None or (owner != mobile.user and not same_user)


async def deliver_one(deps: Deps, code: str, now: datetime) -> None:
    """Tell the desktop that shows this code, if it is connected here, of the phone that waits."""
    async with deps.database.transaction() as conn:
        pairing = await pairings.by_code(conn, deps.codes.macs(code))
    if pairing is not None:
        await deliver(deps, {pairing.id: Codes.channel(code)}, now)


async def deliver(deps: Deps, names: Mapping[UUID, str], now: datetime) -> int:
    """Tell the desktops that are connected here of the phones that wait for them, each once. How many.

    `names`: channels' names that are known; of others only those are told whose desktop has joined.
    """
    told = deps.alarm.told
    # What another tells meanwhile may be newer than what is read here.
    before = set(told)
    async with deps.database.transaction() as conn:
        waiting = await store.unanswered(conn, now)
    told.difference_update(
        {key for key in before if all(one.request.pairing_id != key[0] for one in waiting)}
    )
    count = 0
    for one in waiting:
        channel = deps.hub.channels.get(one.request.pairing_id)
        name = names.get(one.request.pairing_id) or (channel.name if channel else None)
        connection = deps.hub.device(one.desktop.user, one.desktop.session_id)
        if name is None or connection is None or (one.request.pairing_id, connection.connection_id) in told:
            continue
        told.add((one.request.pairing_id, connection.connection_id))
        left = max(0, round((one.expires_at - now).total_seconds()))
        connection.asked_to_confirm(name, one.request.device, one.request.address or "unknown", left)
        count += 1
    return count


async def answer(
    deps: Deps, channel: str, session_id: str, context: RequestContext, *, confirmed: bool
) -> None:
    """The desktop wants the phone that has asked, or does not. Raises InvalidChannel if there is none."""
    macs = deps.codes.macs(Codes.of_channel(channel))
    desktop = Seat(session_id, context.subject)
    async with deps.database.transaction() as conn:
        act = store.confirm if confirmed else store.reject
        answered = await act(conn, macs, desktop, context.now)
        if answered is not None:
            event = deps.audit.event(
                "pairing.confirmed" if confirmed else "pairing.rejected",
                "success",
                context,
                pairing_id=answered.pairing_id,
                by_session=session_id,
                device=answered.device,
                mobile_address=answered.address,
            )
            await deps.audit.record(conn, event)
    if answered is None:
        raise InvalidChannel("No phone waits for a confirmation there.", channel=channel)
    if not confirmed:
        deps.hub.lapse(answered.pairing_id, "rejected")

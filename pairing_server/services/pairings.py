"""Pairing: draw a code, redeem it, list and end pairings. One function, one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from pairing_server.errors import (
    ConfirmationNeeded,
    InvalidCode,
    NotFound,
    PairingServerError,
    RateLimited,
    Unavailable,
    ValidationFailed,
)
from pairing_server.request_context import RequestContext, system
from pairing_server.security.limits import SlidingWindow
from pairing_server.services import brute_force_guard, confirmations, redeem_failures
from pairing_server.services.account_status import account_of, not_enabled, require_enabled
from pairing_server.services.codes import Codes
from pairing_server.services.deps import Deps
from pairing_server.services.membership import both_gone, bound_event, closed_event, conflict
from pairing_server.services.rate_limits import LimitKey
from pairing_server.store import codes
from pairing_server.store import pairings as store
from pairing_server.store.audit_events import Event
from pairing_server.store.codes import Draw, Made, Making, Redeeming
from pairing_server.store.pairings import Pairing, Seat

# How many codes are drawn at once. With 90 % of all names taken a thousand draws miss all free ones
# once in 10⁴⁵ times, so drawing never takes more than these statements.
_DRAWS = (8, 1000)
# How often a desktop may find that it was just asking elsewhere as well.
_TURNS = 5


@dataclass(frozen=True, slots=True)
class Code:
    """A code that was given out, and until when it works."""

    code: str
    pairing_id: UUID
    created_at: datetime
    expires_at: datetime

    @property
    def channel(self) -> str:
        return Codes.channel(self.code)

    @property
    def expires_in(self) -> int:
        """Seconds from when it was made."""
        return round((self.expires_at - self.created_at).total_seconds())


async def generate(deps: Deps, desktop_session: str, context: RequestContext) -> Code:
    """A new code for this desktop session; its pending one is superseded.

    Raises SessionConflict, RateLimited (codes made, codes waiting), Unavailable (too many live).
    """
    rules = deps.rules
    if deps.live.count >= rules.max_live_codes:
        raise Unavailable("Too many codes are in use at the moment. Try again in a minute.", retry_after_s=30)
    async with deps.turns.of(f"codes {context.subject or context.address_key}"):
        _check_rate(deps, context)
        made, superseded = await _generate(deps, Seat(desktop_session, context.subject), context)
        for window, key in _windows(deps, context):
            window.charge(key, context.now.timestamp())
    deps.live.count += 1 - len(superseded)
    for pairing_id in superseded:
        deps.hub.lapse(pairing_id, "superseded")
    return made


def _windows(deps: Deps, context: RequestContext) -> list[tuple[SlidingWindow, str]]:
    """What counts the codes this caller makes; local to the process, unlike what guards guesses."""
    windows = [(deps.codes_by_address, context.address_key)]
    return windows if context.subject is None else [*windows, (deps.codes_by_user, context.subject)]


def _check_rate(deps: Deps, context: RequestContext) -> None:
    wait = max(window.wait(key, context.now.timestamp()) for window, key in _windows(deps, context))
    if wait:
        raise RateLimited(
            wait,
            "You asked for too many codes. Use the code that you have, or try again later.",
            limit="codes",
        )


async def _generate(deps: Deps, desktop: Seat, context: RequestContext) -> tuple[Code, list[UUID]]:
    """The new code, and the pairings it has superseded."""
    wanted = _wanted(deps, desktop, context)
    for count in _DRAWS:
        drawn = deps.codes.draw(count)
        made = await _make(deps, wanted, [draw for _, draw in drawn.values()])
        _count(deps, made, wanted)
        await _check(deps, made, wanted, context)
        if made.mac is not None:
            return Code(
                drawn[made.mac][0], wanted.pairing_id, context.now, wanted.expires_at
            ), made.superseded
    raise Unavailable("No free code was found. Try again.")


def _wanted(deps: Deps, desktop: Seat, context: RequestContext) -> Making:
    pairing_id = uuid4()
    expires_at = context.now + timedelta(seconds=deps.rules.code_ttl)
    created = deps.audit.draft(
        "pairing.code_created",
        "success",
        context,
        pairing_id=pairing_id,
        desktop_session=desktop.session_id,
        expires_at=expires_at.isoformat(),
    )
    return Making(
        pairing_id=pairing_id,
        desktop=desktop,
        account=account_of(desktop.user),
        now=context.now,
        expires_at=expires_at,
        most_waiting=deps.rules.codes_per_user,
        bound=bound_event(deps, desktop.session_id, "desktop", context),
        made=created,
    )


async def _make(deps: Deps, wanted: Making, draws: Sequence[Draw]) -> Made:
    """What came of the statement."""
    for _ in range(_TURNS):
        made = await codes.make(deps.database.once, wanted, draws)
        if not _contended(made, wanted):
            return made
    raise Unavailable("This desktop asked for several codes at once. Ask for one after the other.")


def _admitted(made: Made, wanted: Making) -> bool:
    return made.enabled and made.waiting < wanted.most_waiting


def _contended(made: Made, wanted: Making) -> bool:
    return _admitted(made, wanted) and wanted.desktop.user is not None and made.owner is None


def _count(deps: Deps, made: Made, wanted: Making) -> None:
    if made.newly_bound:
        deps.audit.count(wanted.bound)
    if made.mac is not None:
        deps.audit.count(wanted.made)


async def _check(deps: Deps, made: Made, wanted: Making, context: RequestContext) -> None:
    """Raises InvalidToken, RateLimited (as many codes of the user wait as may), SessionConflict."""
    if not made.enabled:
        raise not_enabled()
    if not _admitted(made, wanted):
        raise RateLimited(
            deps.rules.code_ttl,
            "Too many of your codes are unused. Use one, or wait until one expires.",
            limit="codes_per_user",
        )
    if made.owner is not None and made.owner != wanted.desktop.user:
        async with deps.database.transaction() as conn:
            refusal = await conflict(
                deps, conn, wanted.desktop.session_id, made.owner, context.at(wanted.now)
            )
        raise refusal


async def redeem(
    deps: Deps, typed: str, mobile_session: str, context: RequestContext, device: str = ""
) -> Code:
    """Pair the mobile session with the desktop that shows this code; exactly one of many wins.

    `device`: what the phone calls itself. Raises ValidationFailed (not six digits), InvalidCode, RateLimited,
    SessionConflict, ConfirmationNeeded.
    """
    code = Codes.parse(typed)
    if code is None:
        raise ValidationFailed(fields={"code": ["Must be the six digits that the desktop shows."]})
    mobile = Seat(mobile_session, context.subject)
    async with deps.turns.of(f"redeem {context.subject or context.address_key}"):
        pairing, refusal, replaced = await _redeem(deps, code, mobile, device, context)
    if isinstance(refusal, ConfirmationNeeded):
        await confirmations.deliver_one(deps, code, context.now)
    if isinstance(refusal, InvalidCode) and deps.alarm.failed(context.now):
        await brute_force_guard.settle(deps, system(context.now))
    if refusal is not None or pairing is None:
        raise refusal or InvalidCode()
    if pairing.redeemed_at == context.now:
        deps.hub.claimed(pairing.desktop.user, pairing.desktop.session_id, Codes.channel(code))
    for pairing_id in replaced:
        deps.hub.end(pairing_id, "superseded", {"desktop": pairing.desktop.session_id}, keep="desktop")
    return Code(code, pairing.id, pairing.created_at, pairing.expires_at)


async def _redeem(
    deps: Deps, code: str, mobile: Seat, device: str, context: RequestContext
) -> tuple[Pairing | None, PairingServerError | None, list[UUID]]:
    """The pairing, or why not; and the pairings it has taken the place of."""
    limits = redeem_failures.limits_of(deps, context)
    typed = _typed(deps, code, mobile, limits, context)
    async with deps.database.direct() as direct:
        found = await codes.redeem(direct.driver.fetchrow, typed)
        if not found.enabled:
            raise not_enabled()
        if found.newly_bound:
            deps.audit.count(typed.bound)
        if found.pairing is None:
            refusal = await redeem_failures.refuse(deps, direct, found, typed, device, limits, context)
            return None, refusal, []
        deps.audit.count(typed.won)
        if found.superseded:
            await deps.audit.record(direct.conn, *_superseded(deps, found.superseded, context))
    return found.pairing, None, found.superseded


def _typed(
    deps: Deps, code: str, mobile: Seat, limits: Sequence[LimitKey], context: RequestContext
) -> Redeeming:
    won = deps.audit.draft("pairing.redeem", "success", context, mobile_session=mobile.session_id)
    return Redeeming(
        macs=deps.codes.macs(code),
        mobile=mobile,
        account=account_of(mobile.user),
        now=context.now,
        same_user=deps.rules.same_user,
        # What is only counted decides nothing: it is locked when a failure is counted, not by everybody behind one address.
        limits=[(limit.kind, limit.key, limit.how) for limit in limits if limit.how != "counted"],
        bound=bound_event(deps, mobile.session_id, "mobile", context),
        won=won,
        confirm=deps.alarm.on(context.now),
    )


def _superseded(deps: Deps, replaced: Sequence[UUID], context: RequestContext) -> list[Event]:
    return [
        deps.audit.event("pairing.closed", "success", context, reason="superseded", pairing_id=ended)
        for ended in replaced
    ]


async def list_own(deps: Deps, context: RequestContext) -> list[Pairing]:
    """The caller's live pairings, newest first."""
    async with deps.database.transaction() as conn:
        await require_enabled(conn, context.subject)
        return await store.live_of(conn, context.subject or "")


async def unpair(deps: Deps, pairing_id: UUID, context: RequestContext) -> Pairing:
    """End one of the caller's live pairings for good. Raises NotFound."""
    async with deps.database.transaction() as conn:
        await require_enabled(conn, context.subject)
        ended = await store.end_own(conn, pairing_id, context.subject or "", context.now)
        if ended is not None:
            await deps.audit.record(conn, closed_event(deps, ended, "unpaired", context))
    if ended is None:
        raise NotFound("You have no pairing with this id. It may have ended.")
    deps.hub.end(ended.id, "unpaired", both_gone(ended))
    return ended

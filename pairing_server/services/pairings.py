"""Pairing: create a code, redeem it, list and end pairings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import (
    InvalidCode,
    LoginEnded,
    NotFound,
    PairingServerError,
    RateLimited,
    Unavailable,
    ValidationFailed,
)
from pairing_server.relay.hub import Hub
from pairing_server.request_context import RequestContext
from pairing_server.services.account_status import require_login
from pairing_server.services.codes import CodeLimits, Codes
from pairing_server.services.membership import bound_event, closed_event, conflict
from pairing_server.services.pairing_changes import PairingChanges, announce_end
from pairing_server.services.redeem_failures import Attempt, RedeemFailures
from pairing_server.services.rules import PairingRules
from pairing_server.store import codes, logins
from pairing_server.store import pairings as store
from pairing_server.store.codes import CodeRequest, CodeResult, Draw, RedeemRequest
from pairing_server.store.pairings import Pairing, Seat

# How many codes are drawn at once. With 90 % of all names taken a thousand draws miss all free ones
# once in 10⁴⁵ times, so drawing never takes more than these statements.
_DRAWS = (8, 1000)
# How often a desktop may find that it was just asking elsewhere as well.
_TRIES = 5


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


@dataclass(frozen=True, slots=True)
class PairingService:
    database: Database
    audit: AuditLog
    hub: Hub
    codes: Codes
    limits: CodeLimits
    failures: RedeemFailures
    changes: PairingChanges
    rules: PairingRules

    async def create_code(self, context: RequestContext, desktop_session: str) -> Code:
        """A new code for this desktop session; its pending one is superseded.

        Raises LoginEnded, SessionConflict, RateLimited (codes made, codes waiting), Unavailable (too many live).
        """
        async with self.limits.making(context):
            made, superseded = await self._create(self._request(desktop_session, context), context)
        self.limits.live += 1 - len(superseded)
        for pairing_id in superseded:
            self.hub.cancel_channel(pairing_id, "superseded")
        return made

    def _request(self, desktop_session: str, context: RequestContext) -> CodeRequest:
        pairing_id = uuid4()
        expires_at = context.now + timedelta(seconds=self.rules.code_ttl)
        return CodeRequest(
            pairing_id=pairing_id,
            desktop=Seat(desktop_session, context.subject),
            caller=logins.caller(context),
            now=context.now,
            expires_at=expires_at,
            most_waiting=self.rules.codes_per_user,
            bound=bound_event(self.audit, desktop_session, "desktop", context),
            made=self.audit.draft(
                "pairing.code_created",
                "success",
                context,
                pairing_id=pairing_id,
                desktop_session=desktop_session,
                expires_at=expires_at.isoformat(),
            ),
        )

    async def _create(self, request: CodeRequest, context: RequestContext) -> tuple[Code, list[UUID]]:
        """The new code, and the pairings it has superseded."""
        for count in _DRAWS:
            drawn = self.codes.draw(count)
            made = await self._make(request, [draw for _, draw in drawn.values()])
            if made.newly_bound:
                self.audit.count(request.bound)
            if made.mac is not None:
                self.audit.count(request.made)
            await self._check(made, request, context)
            if made.mac is not None:
                code = Code(drawn[made.mac][0], request.pairing_id, context.now, request.expires_at)
                self.changes.expect_claim([made.mac], code.channel)
                return code, made.superseded
        raise Unavailable("No free code was found. Try again.")

    async def _make(self, request: CodeRequest, draws: Sequence[Draw]) -> CodeResult:
        """The statement's result."""
        for _ in range(_TRIES):
            made = await codes.make(self.database.once, request, draws)
            if not _contended(made, request):
                return made
        raise Unavailable("This desktop asked for several codes at once. Ask for one after the other.")

    async def _check(self, made: CodeResult, request: CodeRequest, context: RequestContext) -> None:
        """Raises LoginEnded, RateLimited (as many codes of the user wait as may), SessionConflict."""
        if made.refusal is not None:
            raise LoginEnded(made.refusal)
        if not _admitted(made, request):
            raise RateLimited(
                self.rules.code_ttl,
                "Too many of your codes are unused. Use one, or wait until one expires.",
                limit="codes_per_user",
            )
        if made.owner is not None and made.owner != request.desktop.user:
            async with self.database.transaction() as conn:
                refusal = await conflict(self.audit, conn, request.desktop.session_id, made.owner, context)
            raise refusal

    async def redeem_code(
        self, context: RequestContext, typed: str, mobile_session: str, device: str = ""
    ) -> Code:
        """Pair the mobile session with the desktop that shows this code; exactly one of many wins.

        `device`: what the phone calls itself. Raises ValidationFailed (not six digits), InvalidCode, RateLimited,
        SessionConflict, ConfirmationNeeded, LoginEnded.
        """
        code = Codes.parse(typed)
        if code is None:
            raise ValidationFailed(fields={"code": ["Must be the six digits that the desktop shows."]})
        async with self.limits.one_at_a_time("redeem", context):
            attempt = self._attempt(code, Seat(mobile_session, context.subject), device, context)
            try:
                pairing, refusal, superseded = await self._redeem(attempt, context)
            except Unavailable:
                # It may have been committed all the same.
                self.changes.expect_claim(attempt.request.macs, Codes.channel(code))
                raise
        if refusal is not None:
            await self.failures.follow_up(refusal, code, context)
        if refusal is not None or pairing is None:
            raise refusal or InvalidCode()
        if pairing.state == "redeemed":
            desktop = pairing.desktop
            self.hub.announce_claim(pairing.id, desktop.user, desktop.session_id, Codes.channel(code))
        for pairing_id in superseded:
            self.hub.end_channel(
                pairing_id, "superseded", {"desktop": pairing.desktop.session_id}, keep="desktop"
            )
        return Code(code, pairing.id, pairing.created_at, pairing.expires_at)

    def _attempt(self, code: str, mobile: Seat, device: str, context: RequestContext) -> Attempt:
        limits = self.failures.limits(context)
        request = RedeemRequest(
            macs=self.codes.macs(code),
            mobile=mobile,
            caller=logins.caller(context),
            now=context.now,
            same_user=self.rules.same_user,
            # A limit that only counts decides nothing: it is locked when a failure is counted, not by every request of an address.
            limits=[(limit.kind, limit.key, limit.mode) for limit in limits if limit.mode != "counted"],
            bound=bound_event(self.audit, mobile.session_id, "mobile", context),
            won=self.audit.draft("pairing.redeem", "success", context, mobile_session=mobile.session_id),
            confirm=self.failures.guard.active(context.now),
        )
        return Attempt(code, device, limits, request)

    async def _redeem(
        self, attempt: Attempt, context: RequestContext
    ) -> tuple[Pairing | None, PairingServerError | None, list[UUID]]:
        """The pairing, or why not; and the pairings it has superseded."""
        async with self.database.direct() as direct:
            found = await codes.redeem(direct.driver.fetchrow, attempt.request)
            if found.refusal is not None:
                raise LoginEnded(found.refusal)
            if found.newly_bound:
                self.audit.count(attempt.request.bound)
            if found.pairing is None:
                return None, await self.failures.refuse(direct.conn, attempt, found, context), []
            self.audit.count(attempt.request.won)
            if found.superseded:
                ended = [
                    self.audit.event(
                        "pairing.closed", "success", context, reason="superseded", pairing_id=each
                    )
                    for each in found.superseded
                ]
                await self.audit.record(direct.conn, *ended)
        return found.pairing, None, found.superseded

    async def list_own(self, context: RequestContext) -> list[Pairing]:
        """The caller's live pairings, newest first. Raises LoginEnded."""
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            return await store.live_of(conn, context.subject or "")

    async def unpair(self, context: RequestContext, pairing_id: UUID) -> Pairing:
        """End one of the caller's live pairings for good; one that has been unpaired stays so.

        Raises NotFound, LoginEnded.
        """
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            ended = await store.end_own(conn, pairing_id, context.subject or "", context.now)
            if ended is not None:
                await self.audit.record(conn, closed_event(self.audit, ended, "unpaired", context))
            else:
                # A client that had no answer to its first request asks once more.
                ended = await store.unpaired_own(conn, pairing_id, context.subject or "")
        if ended is None:
            raise NotFound("You have no pairing with this id. It may have ended.")
        announce_end(self.hub, ended)
        return ended


def _admitted(made: CodeResult, request: CodeRequest) -> bool:
    return made.refusal is None and made.waiting < request.most_waiting


def _contended(made: CodeResult, request: CodeRequest) -> bool:
    return _admitted(made, request) and request.desktop.user is not None and made.owner is None

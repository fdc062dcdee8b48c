"""A code that did not work: which limits count it, what the caller is answered, and what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.errors import ConfirmationNeeded, InvalidCode, PairingServerError, RateLimited
from pairing_server.request_context import RequestContext, system
from pairing_server.services import rate_limits
from pairing_server.services.brute_force_guard import BruteForceGuard
from pairing_server.services.confirmations import ConfirmationService
from pairing_server.services.membership import conflict
from pairing_server.services.rate_limits import LimitKey, Lockout, lockout_event
from pairing_server.services.rules import AttemptPolicies, PairingRules
from pairing_server.store.codes import RedeemRequest, RedeemResult


@dataclass(frozen=True, slots=True)
class Attempt:
    """A code that is being redeemed. `device`: what the phone calls itself."""

    code: str
    device: str
    limits: Sequence[LimitKey]
    request: RedeemRequest


@dataclass(frozen=True, slots=True)
class RedeemFailures:
    audit: AuditLog
    guard: BruteForceGuard
    confirmations: ConfirmationService
    rules: PairingRules
    policies: AttemptPolicies

    def limits(self, context: RequestContext) -> list[LimitKey]:
        """Only a user's own failures lock the user out of the codes of the own account, not those of others behind the
        same address.

        With `same_user` there are no other codes for a user; the address's failures are counted all the same, for callers
        without an account.
        """
        if context.subject is None:
            return [LimitKey("redeem_address", context.address_key, self.policies.redeem_address)]
        others = not self.rules.same_user
        return [
            LimitKey(
                "redeem_address",
                context.address_key,
                self.policies.redeem_address,
                binding=others,
                except_own=others,
            ),
            LimitKey("redeem_user", context.subject, self.policies.redeem_user),
        ]

    async def refuse(
        self, conn: AsyncConnection, attempt: Attempt, found: RedeemResult, context: RequestContext
    ) -> PairingServerError:
        """Count and record the failure, under the locks it was decided under. The error to be raised."""
        request = attempt.request
        mobile = request.mobile
        if found.owner is not None and found.owner != mobile.user:
            return await conflict(self.audit, conn, mobile.session_id, found.owner, context)
        counting = await rate_limits.hold(conn, attempt.limits, context.now)
        seconds, kind = counting.wait(context.now)
        if seconds:
            await self._record(conn, attempt, "locked", [], context)
            return RateLimited(seconds, "Too many wrong codes. Wait, then try again.", limit=kind)
        if request.confirm:
            needed, new = await self.confirmations.ask(conn, request.macs, mobile, attempt.device, context)
            if needed is not None:
                if new:
                    # The code was right. It counts like a wrong one, so that guessing has a limit here, too.
                    lockouts = await counting.charge(context.now)
                    await self._record(conn, attempt, "unconfirmed", lockouts, context)
                return needed
        lockouts = await counting.charge(context.now)
        await self._record(conn, attempt, "no_such_code", lockouts, context)
        return InvalidCode()

    async def _record(
        self,
        conn: AsyncConnection,
        attempt: Attempt,
        reason: str,
        lockouts: Sequence[Lockout],
        context: RequestContext,
    ) -> None:
        mobile = attempt.request.mobile
        failed = self.audit.event(
            "pairing.redeem", "failure", context, reason=reason, mobile_session=mobile.session_id
        )
        await self.audit.refuse(conn, failed)
        if lockouts:
            await self.audit.record(conn, *(lockout_event(self.audit, each, context) for each in lockouts))

    async def follow_up(self, refusal: PairingServerError, code: str, context: RequestContext) -> None:
        """What a refusal leads to once its transaction has ended."""
        if isinstance(refusal, ConfirmationNeeded):
            await self.confirmations.send_one(code, context.now)
        elif isinstance(refusal, InvalidCode) and self.guard.record_failure(context.now):
            await self.guard.settle(system(context.now))

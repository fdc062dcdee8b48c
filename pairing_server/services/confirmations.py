"""While the brute force guard is active, a phone of another account gets its seat only once the desktop has confirmed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import ConfirmationNeeded, InvalidChannel
from pairing_server.relay import messages
from pairing_server.relay.hub import Hub
from pairing_server.request_context import RequestContext
from pairing_server.services.account_status import require_login
from pairing_server.services.codes import Codes
from pairing_server.services.rules import PairingRules
from pairing_server.store import confirmations as store
from pairing_server.store import pairings
from pairing_server.store.confirmations import Request
from pairing_server.store.pairings import Pairing, Seat

# Seconds after which a phone that waits asks again.
RETRY_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class ConfirmationService:
    database: Database
    audit: AuditLog
    hub: Hub
    codes: Codes
    rules: PairingRules
    # The requests that were sent: pairing and connection.
    sent: set[tuple[UUID, str]] = field(default_factory=set)

    async def ask(
        self, conn: AsyncConnection, macs: Sequence[bytes], mobile: Seat, device: str, context: RequestContext
    ) -> tuple[ConfirmationNeeded | None, bool]:
        """Record that the phone waits for the desktop with this code.

        The error to be raised, None if it would not get the seat anyway; and whether this is its first try.
        """
        pairing = await pairings.by_code(conn, macs)
        if pairing is None or not self._may_ask(pairing, mobile, context.now):
            return None, False
        request = Request(pairing.id, device or "unknown", context.address)
        waiting, new = await store.ask(conn, request, mobile, context.now)
        if waiting != mobile:
            return None, False
        left = round((pairing.expires_at - context.now).total_seconds())
        return ConfirmationNeeded(RETRY_AFTER_S, expires_in=left), new

    def _may_ask(self, pairing: Pairing, mobile: Seat, now: datetime) -> bool:
        """Whether only the confirmation keeps this phone from the seat."""
        if pairing.state != "pending" or pairing.expires_at <= now:
            return False
        owner = pairing.desktop.user
        return owner is None or (owner != mobile.user and not self.rules.same_user)

    async def send_one(self, code: str, now: datetime) -> None:
        """Send the request of the phone that waits to the desktop that shows this code, if it is connected here."""
        async with self.database.transaction() as conn:
            pairing = await pairings.by_code(conn, self.codes.macs(code))
        if pairing is not None:
            await self.send({pairing.id: Codes.channel(code)}, now)

    async def send(self, names: Mapping[UUID, str], now: datetime) -> int:
        """Send the requests of all phones that wait to their desktops that are connected here, each once. How many.

        `names`: names of channels that are known. For the others, only desktops that have joined get the request.
        """
        # A request sent while this reads may be newer than what it reads.
        before = set(self.sent)
        async with self.database.transaction() as conn:
            waiting = await store.unanswered(conn, now)
        open_ = {one.request.pairing_id for one in waiting}
        self.sent.difference_update({sent for sent in before if sent[0] not in open_})
        count = 0
        for one in waiting:
            pairing_id = one.request.pairing_id
            channel = self.hub.channels.get(pairing_id)
            name = names.get(pairing_id) or (channel.name if channel else None)
            connection = self.hub.connection_of(one.desktop.user, one.desktop.session_id)
            if name is None or connection is None or (pairing_id, connection.connection_id) in self.sent:
                continue
            self.sent.add((pairing_id, connection.connection_id))
            left = max(0, round((one.expires_at - now).total_seconds()))
            message = messages.PairingRequest(
                channel=name,
                device=one.request.device,
                address=one.request.address or "unknown",
                expires_in=left,
            )
            connection.send_message(message)
            count += 1
        return count

    async def answer(
        self, context: RequestContext, channel: str, session_id: str, *, confirmed: bool
    ) -> None:
        """The desktop confirms or rejects the phone that waits; repeating it does nothing. Raises InvalidChannel if none
        waits; LoginEnded."""
        macs = self.codes.macs(Codes.of_channel(channel))
        desktop = Seat(session_id, context.subject)
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            act = store.confirm if confirmed else store.reject
            answered = await act(conn, macs, desktop, context.now)
            if answered is not None:
                event = self.audit.event(
                    "pairing.confirmed" if confirmed else "pairing.rejected",
                    "success",
                    context,
                    pairing_id=answered.pairing_id,
                    by_session=session_id,
                    device=answered.device,
                    mobile_address=answered.address,
                )
                await self.audit.record(conn, event)
                pairing_id: UUID | None = answered.pairing_id
            else:
                pairing_id = await store.answered(conn, macs, desktop, confirmed=confirmed)
        if pairing_id is None:
            raise InvalidChannel("No phone waits for a confirmation there.", channel=channel)
        if not confirmed:
            self.hub.cancel_channel(pairing_id, "rejected")

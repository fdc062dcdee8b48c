"""What a client asks for that only the services can do: identify, join, unpair, confirm, a new token."""

from __future__ import annotations

import logging
from uuid import UUID

from pairing_server.clock import utcnow
from pairing_server.errors import (
    Forbidden,
    Internal,
    InvalidToken,
    PairingServerError,
    SessionConflict,
    Unavailable,
)
from pairing_server.relay import requests
from pairing_server.relay.asking import Deferred
from pairing_server.relay.channel import Channel
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection import Connection
from pairing_server.relay.identity import Device
from pairing_server.text import clean
from pairing_server.websocket.handshake import Opening

log = logging.getLogger(__name__)


class Asking(Opening):
    """A connection whose session returns requests: each is done, and the session told."""

    async def _serve(self, connection: Connection, request: Deferred) -> None:
        """Do what needs the database, and tell the session."""
        try:
            with self.app.traces.span(f"websocket {request.__struct_config__.tag}", parent=self.span) as span:
                span.set_attribute("pairing.connection_id", connection.connection_id)
                await self._do(connection, request)
        except SessionConflict as error:
            connection.refuse(Forbidden(error.text), self.app.now())
        except InvalidToken as error:
            connection.refuse(error, self.app.now())
            if error.reason == "disabled":
                connection.close(CloseCode.INVALID_TOKEN, "account disabled")
        except PairingServerError as error:
            connection.refuse(error, self.app.now())
        except Exception:
            log.exception("%s failed", type(request).__name__, extra=self._ids())
            connection.refuse(Internal(), self.app.now())

    async def _do(self, connection: Connection, request: Deferred) -> None:
        match request:
            case requests.Identify():
                await self._identify(connection, request)
            case requests.JoinChannel():
                await self._join(connection, request)
            case requests.LeaveChannel():
                self._left(connection.leave(self.app.now()))
            case requests.Unpair():
                await self._unpair(connection)
            case requests.RefreshToken():
                await self._refresh(connection, request)
            case requests.PairingConfirm() | requests.PairingReject():
                await self._answer_request(connection, request)

    async def _identify(self, connection: Connection, request: requests.Identify) -> None:
        try:
            await self.app.services.membership.identify(
                self.context.at(utcnow()), request.session_id, request.device_type
            )
        except Unavailable:
            # The database is away: a device that was seated here a moment ago is known all the same.
            if self._remembered(connection, request.session_id) is None:
                raise
        if not connection.closing:
            agent = clean(request.user_agent) if request.user_agent else None
            connection.identified(Device(request.session_id, agent))
            connection.identified_answer(request)

    async def _join(self, connection: Connection, request: requests.JoinChannel) -> None:
        named = request.channel_named or ""
        session_id = request.session_id or connection.session_id
        try:
            admitted = await self.app.services.membership.admit(
                self.context.at(utcnow()), named, connection.device_type, session_id
            )
        except Unavailable:
            known = self._remembered(connection, session_id)
            if known is None or known.name != named:
                raise
            self._rejoin(connection, request, Device(session_id), known)
            return
        if connection.closing:
            return
        now = self.app.now()
        connection.identified(connection.device or Device(session_id))
        left = connection.channel
        pairing = admitted.pairing
        met = pairing.activated_at is not None
        channel = self.app.hub.channel(pairing.id, named, now, ever_active=met, kept=admitted.kept)
        first = not channel.ever_active
        joined = connection.entered(channel, request, now)
        if left is not None and left is not channel:
            self._note_presence(left.pairing_id, active=False)
        if joined.fresh:
            self._record("channel.joined", "success", pairing=channel.pairing_id, slot=connection.device_type)
        if joined.activated and first:
            self.app.time_to_pair.observe((utcnow() - pairing.created_at).total_seconds())
        if joined.activated and pairing.state != "active":
            self._note_presence(channel.pairing_id, active=True)
        elif joined.activated:
            self.app.services.presence.known_active(channel.pairing_id)

    def _remembered(self, connection: Connection, session_id: str) -> Channel | None:
        """The channel that this device was seen in a moment ago."""
        return self.app.hub.remembered(connection.subject, session_id, connection.device_type, self.app.now())

    def _rejoin(
        self, connection: Connection, request: requests.JoinChannel, device: Device, channel: Channel
    ) -> None:
        """While the database is away, a device comes back to its own seat from memory."""
        if connection.closing:
            return
        connection.identified(connection.device or device)
        if connection.entered(channel, request, self.app.now(), degraded=True).fresh:
            self._record(
                "channel.joined",
                "success",
                pairing=channel.pairing_id,
                slot=connection.device_type,
                degraded=True,
            )

    def _left(self, channel: Channel | None) -> None:
        if channel is not None and channel.ever_active:
            self._note_presence(channel.pairing_id, active=False)

    async def _unpair(self, connection: Connection) -> None:
        channel = connection.channel
        if channel is not None:
            await self.app.services.membership.unpair(
                self.context.at(utcnow()), channel.pairing_id, connection.device_type
            )

    async def _answer_request(
        self, connection: Connection, request: requests.PairingConfirm | requests.PairingReject
    ) -> None:
        joined = connection.channel.name if connection.channel else ""
        await self.app.services.confirmations.answer(
            self.context.at(utcnow()),
            request.channel_named or joined,
            connection.session_id,
            confirmed=isinstance(request, requests.PairingConfirm),
        )

    async def _refresh(self, connection: Connection, request: requests.RefreshToken) -> None:
        """Raises InvalidToken; a token of somebody else's closes."""
        now = utcnow()
        claims = self.app.tokens.verify_ws(request.token, now)
        if (claims.subject, claims.device_type) != (connection.subject, connection.device_type):
            self._record("auth.token_rejected", "denied", reason="other_subject", kind="ws")
            connection.refuse(
                Forbidden("This token is for another account or type of device. Get one for this device."),
                self.app.now(),
            )
            connection.close(CloseCode.FORBIDDEN, "token of another user")
            return
        old = connection.identity.token_id
        if claims.token_id != old:
            await self.app.services.logins.spend(self.context.at(now), claims)
            self._record("auth.token_refreshed", "success", jti_old=old, jti_new=claims.token_id)
        connection.refreshed(self._identity(claims), self.app.now())

    def _note_presence(self, pairing_id: UUID, *, active: bool) -> None:
        """The timer would note it too, within half a minute."""
        presence = self.app.services.presence
        if presence.note(pairing_id, active=active):
            self.app.spawn(presence.write(utcnow))

"""The registry of client messages: for each type its struct, limits, precondition and handler.

A new type is its struct in relay/requests.py and one row here. A row with `on_channel` or `reply` is handled within the
relay, at once; one with `serve` needs services, and its handler is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pairing_server.clock import utcnow
from pairing_server.errors import ConnectedElsewhere, LoginEnded, TokenMismatch, Unavailable
from pairing_server.relay import messages, requests
from pairing_server.relay.channel import Channel
from pairing_server.relay.commands import Command, CommandRegistry
from pairing_server.relay.connection import Connection
from pairing_server.relay.identity import Device
from pairing_server.relay.preconditions import check_identify, check_join, check_joined, check_pairing_answer
from pairing_server.relay.rate_limits import ConnectionRateLimits
from pairing_server.request_context import RequestContext
from pairing_server.text import clean
from pairing_server.web.app_context import AppContext
from pairing_server.websocket.handshake import identity_of, known


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What the handlers below work with. `caller`: who sends; its login is that of the connection's newest token."""

    app: AppContext
    connection: Connection
    caller: RequestContext

    def caller_now(self) -> RequestContext:
        return known(self.caller.at(utcnow()), self.connection.identity)

    def record(self, event: str, outcome: str, pairing_id: UUID | None = None, **attributes: Any) -> None:
        """Put an event of this connection into the audit log."""
        audit = self.app.audit
        audit.enqueue(audit.event(event, outcome, self.caller_now(), pairing_id=pairing_id, **attributes))

    def note_left(self, channel: Channel | None) -> None:
        """The connection has left that channel: note that its device is not there any more."""
        if channel is not None:
            self.note_presence(channel.pairing_id)

    def note_presence(self, pairing_id: UUID) -> None:
        """The periodic job would note it too, within half a minute."""
        presence = self.app.services.presence
        if presence.note(pairing_id):
            self.app.spawn(presence.write(utcnow))


async def identify(context: CommandContext, request: requests.Identify) -> None:
    connection = context.connection
    try:
        await context.app.services.membership.identify(
            context.caller_now(), request.session_id, request.device_type
        )
    except Unavailable:
        # Without the database, a device that was in its seat a moment ago is known all the same.
        if _remembered_channel(context, request.session_id) is None:
            raise
    if not connection.closing:
        agent = clean(request.user_agent) if request.user_agent else None
        context.app.hub.identify(connection, Device(request.session_id, agent))
        connection.send_message(
            messages.Identified(device_type=request.device_type, session_id=request.session_id)
        )


async def join_channel(context: CommandContext, request: requests.JoinChannel) -> None:
    connection, hub = context.connection, context.app.hub
    name = request.channel_named or ""
    session_id = request.session_id or connection.session_id
    device = connection.device or Device(session_id)
    try:
        admitted = await context.app.services.membership.admit(
            context.caller_now(), name, connection.device_type, session_id
        )
    except ConnectedElsewhere:
        raise
    except Unavailable:
        known = _remembered_channel(context, session_id)
        if known is None or known.name != name:
            raise
        _rejoin(context, request, device, known)
        return
    now, pairing = context.app.now(), admitted.pairing
    if connection.closing:
        context.note_presence(pairing.id)
        return
    hub.identify(connection, connection.device or device)
    left = connection.channel
    met = pairing.activated_at is not None
    channel = hub.open_channel(pairing.id, name, now, ever_active=met, settings=admitted.kept)
    channel.seen_at = pairing.seen_at
    first = not channel.ever_active
    joined = hub.join(connection, channel, request, now)
    if left is not None and left is not channel:
        context.note_left(left)
    if joined.fresh:
        context.record("channel.joined", "success", channel.pairing_id, slot=connection.device_type)
    if joined.activated and first:
        context.app.time_to_pair.observe((utcnow() - pairing.created_at).total_seconds())
    if joined.activated and pairing.state != "active":
        context.note_presence(channel.pairing_id)
    else:
        context.app.services.presence.known_joined(channel.pairing_id, both=joined.activated)


def _remembered_channel(context: CommandContext, session_id: str) -> Channel | None:
    """The channel that this device was seen in a moment ago."""
    return context.app.hub.remembered_channel(context.connection, session_id, context.app.now())


def _rejoin(context: CommandContext, request: requests.JoinChannel, device: Device, channel: Channel) -> None:
    """Without the database, a device comes back to its own seat from memory."""
    connection, hub = context.connection, context.app.hub
    if connection.closing:
        return
    hub.identify(connection, connection.device or device)
    joined = hub.join(connection, channel, request, context.app.now(), degraded=True)
    if joined.fresh:
        slot = connection.device_type
        context.record("channel.joined", "success", channel.pairing_id, slot=slot, degraded=True)


async def leave_channel(context: CommandContext, request: requests.LeaveChannel) -> None:
    context.note_left(context.connection.leave(context.app.now()))


async def unpair(context: CommandContext, request: requests.Unpair) -> None:
    connection = context.connection
    if connection.channel is not None:
        await context.app.services.membership.unpair(
            context.caller_now(), connection.channel.pairing_id, connection.device_type
        )


async def confirm_pairing(context: CommandContext, request: requests.PairingConfirm) -> None:
    await _answer_pairing(context, request, confirmed=True)


async def reject_pairing(context: CommandContext, request: requests.PairingReject) -> None:
    await _answer_pairing(context, request, confirmed=False)


async def _answer_pairing(
    context: CommandContext, request: requests.ChannelRequest, *, confirmed: bool
) -> None:
    connection = context.connection
    joined = connection.channel.name if connection.channel else ""
    await context.app.services.confirmations.answer(
        context.caller_now(), request.channel_named or joined, connection.session_id, confirmed=confirmed
    )


async def refresh_token(context: CommandContext, request: requests.RefreshToken) -> None:
    """Raises InvalidToken; and LoginEnded or TokenMismatch, which close the connection."""
    connection, caller = context.connection, context.caller_now()
    claims = context.app.tokens.verify_ws(request.token, caller.now)
    if (claims.subject, claims.device_type) != (connection.subject, connection.device_type):
        context.record("auth.token_rejected", "denied", reason="other_subject", kind="ws")
        raise TokenMismatch()
    old = connection.identity.token_id
    if claims.token_id != old:
        await context.app.services.logins.spend(caller, claims)
        context.record("auth.token_refreshed", "success", jti_old=old, jti_new=claims.token_id)
    now = context.app.now()
    identity = identity_of(claims, utcnow(), now)
    if context.app.services.logins.is_ended(identity):
        raise LoginEnded("revoked")
    if not connection.closing:
        connection.renew(identity, now)


def answer_ping(request: requests.Ping) -> messages.PongAnswer:
    return messages.PongAnswer(sequence=request.sequence)


COMMANDS = CommandRegistry(
    Command(
        requests.ChannelMessage,
        size_limit="message_size",
        on_channel=Channel.relay_message,
    ),
    Command(
        requests.AudioChunk,
        size_limit="audio_size",
        charge=ConnectionRateLimits.charge_audio,
        check_content=requests.check_audio,
        on_channel=Channel.forward_audio,
    ),
    Command(
        requests.SettingsSync,
        check_content=requests.check_settings,
        on_channel=Channel.sync_settings,
    ),
    Command(requests.Ping, reply=answer_ping),
    Command(requests.Pong),
    Command(
        requests.Identify,
        charge=ConnectionRateLimits.charge_service,
        precondition=check_identify,
        serve=identify,
    ),
    Command(
        requests.JoinChannel,
        charge=ConnectionRateLimits.charge_join,
        precondition=check_join,
        serve=join_channel,
    ),
    Command(requests.LeaveChannel, precondition=check_joined, serve=leave_channel),
    Command(
        requests.Unpair,
        charge=ConnectionRateLimits.charge_service,
        precondition=check_joined,
        serve=unpair,
    ),
    Command(
        requests.PairingConfirm,
        charge=ConnectionRateLimits.charge_service,
        precondition=check_pairing_answer,
        serve=confirm_pairing,
    ),
    Command(
        requests.PairingReject,
        charge=ConnectionRateLimits.charge_service,
        precondition=check_pairing_answer,
        serve=reject_pairing,
    ),
    Command(requests.RefreshToken, charge=ConnectionRateLimits.charge_service, serve=refresh_token),
)

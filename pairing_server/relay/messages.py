"""What the server sends on the WebSocket: structs tagged by `type`, and their encoding. No I/O.

The envelope of what is relayed is always made anew, so nothing else a client sends can reach its peer. What
clients send is in requests.py.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from pairing_server.errors import PairingServerError, RateLimited, Unavailable
from pairing_server.relay.json_nesting import check_object


class ServerMessage(msgspec.Struct, tag_field="type", frozen=True, omit_defaults=True, kw_only=True):
    """What the server sends."""


class ToChannel(ServerMessage, frozen=True, kw_only=True):
    """Everything about a channel names it twice, for clients of either spelling; give `channel` alone."""

    channel: str
    channelId: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "channelId", self.channel)


class Connected(ServerMessage, tag="connected", frozen=True):
    client_id: str


class Identified(ServerMessage, tag="identified", frozen=True):
    device_type: str
    session_id: str


class ChannelJoined(ToChannel, tag="channel_joined", frozen=True, kw_only=True):
    devices: list[str]
    settings: dict[str, Raw]
    rev: int
    epoch: str
    seq: int
    last_seq: int
    recovered: bool
    degraded: bool = False


class ChannelLeft(ToChannel, tag="channel_left", frozen=True, kw_only=True):
    pass


class ClientJoined(ToChannel, tag="client_joined", frozen=True, kw_only=True):
    client_id: str
    device_type: str


class PairingClaimed(ToChannel, tag="pairing_claimed", frozen=True, kw_only=True):
    pass


class PairingRequest(ToChannel, tag="pairing_request", frozen=True, kw_only=True):
    device: str
    address: str
    expires_in: int


class PairingSuccess(ToChannel, tag="pairing_success", frozen=True, kw_only=True):
    code: str
    message: str
    devices: list[str]


class ToPeer(ToChannel, tag="channel_message", frozen=True, kw_only=True):
    payload: Raw
    seq: int
    id: str | int | None = None


class Ack(ServerMessage, tag="ack", frozen=True):
    id: str | int
    seq: int


class SettingsDocumentMessage(ToChannel, tag="settings_sync", frozen=True, kw_only=True):
    settings: dict[str, Raw]
    changed: list[str]
    rev: int
    seq: int | None = None


class AudioToPeer(ToChannel, tag="audio_chunk", frozen=True, kw_only=True):
    data: Raw
    audio_seq: int
    chunk_id: str | int | None = None
    format: str | None = None
    sample_rate: float | int | None = None


class AudioGap(ToChannel, tag="audio_gap", frozen=True, kw_only=True):
    from_: int = msgspec.field(name="from")
    to: int
    reason: str


class PongAnswer(ServerMessage, tag="pong", frozen=True, omit_defaults=False):
    sequence: int


class DesktopDisconnected(ToChannel, tag="desktop_disconnected", frozen=True, kw_only=True):
    reason: str
    force_disconnect: bool
    client_id: str
    device_type: str


class MobileDisconnected(ToChannel, tag="mobile_disconnected", frozen=True, kw_only=True):
    reason: str
    force_disconnect: bool
    client_id: str
    device_type: str


DISCONNECTED: dict[str, type[DesktopDisconnected | MobileDisconnected]] = {
    "desktop": DesktopDisconnected,
    "mobile": MobileDisconnected,
}


class ChannelClosed(ToChannel, tag="channel_closed", frozen=True, kw_only=True):
    reason: str


class IntruderRefused(ToChannel, tag="intruder_refused", frozen=True, kw_only=True):
    device_type: str
    current_devices: int


class PeerSlow(ToChannel, tag="peer_slow", frozen=True, kw_only=True):
    device_type: str


class TokenExpiring(ServerMessage, tag="token_expiring", frozen=True):
    expires_in: int


class TokenRefreshed(ServerMessage, tag="token_refreshed", frozen=True):
    expires_in: int


class Error(ServerMessage, tag="error", frozen=True, omit_defaults=False):
    code: str
    message: str
    details: dict[str, object]
    retryable: bool
    id: Raw | msgspec.UnsetType = msgspec.UNSET


# As a number: a search for one byte is several times as fast as one for bytes.
_BRACKET = ord("[")
_encoder = msgspec.json.Encoder()
encode = _encoder.encode


class Envelope:
    """The envelope of a channel's relayed messages: a ToPeer, put together from bytes.

    The payload is copied once and read no more than its check needs; the head is always the same.
    """

    __slots__ = ("_head", "_nesting", "_payload_at")

    def __init__(self, channel: str, nesting: int) -> None:
        """`nesting`: how deep a payload may be."""
        name = encode(channel)
        self._head = b'{"type":"channel_message","channel":%b,"channelId":%b,"payload":' % (name, name)
        self._payload_at = len(self._head)
        self._nesting = nesting

    def wrap(self, payload: Raw | bytes, seq: int, id_: str | int | None) -> bytes:
        """The message, encoded. Raises ValidationFailed if the payload is no object, or nested too deep."""
        if id_ is None:
            message = b"".join((self._head, payload, b',"seq":%d}' % seq))
        else:
            message = b"".join((self._head, payload, b',"seq":%d,"id":' % seq, encode(id_), b"}"))
        # Nearly every payload is flat: its first byte is the last opening brace.
        if message.rfind(b"{") != self._payload_at or _BRACKET in message:
            check_object(payload, self._nesting)
        return message


def error_message(error: PairingServerError) -> Error:
    """The `error` message for the client, with the `id` of the message that it answers."""
    details = dict(error.details)
    if isinstance(error, RateLimited | Unavailable):
        details["retry_after_ms"] = max(1, round(error.retry_after_s * 1000))
    return Error(
        code=error.code,
        message=error.text,
        details=details,
        retryable=error.retryable,
        id=msgspec.UNSET if error.answers is None else Raw(error.answers),
    )

"""What clients send on the WebSocket: structs tagged by `type`, and their decoding. No I/O.

What members send each other (`payload`, `settings`, `data`) stays raw JSON and is forwarded as it came. What the
server sends is in messages.py; how each type is handled, in websocket/commands.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from pairing_server.errors import (
    InvalidMessage,
    PairingServerError,
    PayloadTooLarge,
    UnknownType,
    ValidationFailed,
)
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.json_nesting import too_deep

DeviceType = Literal["desktop", "mobile"]
SessionId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:-]{8,128}\Z")]
ShortText = Annotated[str, Meta(max_length=512)]
Name = Annotated[str, Meta(max_length=128)]
Token = Annotated[str, Meta(max_length=4096)]
# What a JavaScript number holds exactly.
SafeInteger = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
SampleRate = Annotated[int, Meta(ge=0, le=10**6)] | Annotated[float, Meta(ge=0, le=10**6)]
SettingName = Annotated[str, Meta(min_length=1, max_length=128)]


# None of them can be part of a reference cycle: the garbage collector need not look.
class ClientMessage(msgspec.Struct, tag_field="type", frozen=True, gc=False):
    """What a client may send. Unknown fields are ignored."""

    @property
    def is_addition(self) -> bool:
        """Whether the specification's original clients send no such message."""
        return False


class ChannelRequest(ClientMessage, frozen=True):
    """The channel may go by three names; `channel_named` gives the one meant."""

    channel: Name | None = None
    channelId: Name | None = None
    channel_id: Name | None = None

    @property
    def channel_named(self) -> str | None:
        """The channel named, if any. Raises ValidationFailed if the names disagree."""
        first, second, third = self.channel, self.channelId, self.channel_id
        if first is None and third is None:
            return second
        names = {name for name in (first, second, third) if name is not None}
        if len(names) > 1:
            raise ValidationFailed("channel, channelId and channel_id disagree.", field="channel")
        return names.pop()


class Identify(ClientMessage, tag="identify", frozen=True, kw_only=True):
    device_type: DeviceType
    session_id: SessionId
    user_agent: ShortText | None = None


class JoinChannel(ChannelRequest, tag="join_channel", frozen=True, kw_only=True):
    device_type: DeviceType | None = None
    session_id: SessionId | None = None
    last_seq: Count | None = None
    epoch: Name | None = None
    binary_audio: bool = False

    @property
    def is_addition(self) -> bool:
        return self.last_seq is not None or self.epoch is not None or self.binary_audio


class ChannelMessage(ChannelRequest, tag="channel_message", frozen=True, kw_only=True):
    payload: Raw
    id: Name | SafeInteger | None = None
    again: bool = False

    @property
    def is_addition(self) -> bool:
        return self.id is not None


class SettingsSync(ChannelRequest, tag="settings_sync", frozen=True, kw_only=True):
    settings: dict[SettingName, Raw]
    base_rev: Count | None = None
    fill: bool = False

    @property
    def is_addition(self) -> bool:
        return self.base_rev is not None or self.fill


# Of a JSON string in base64: how those of known streams begin, and the length of one that is too short to tell.
_BEGINNINGS = (b'"GkXfo', b'"T2dnU')
_SHORT = len(b'"T2dnUwA="')


class AudioChunk(ChannelRequest, tag="audio_chunk", frozen=True, kw_only=True):
    chunk_id: Name | SafeInteger | None = None
    data: Raw | msgspec.UnsetType = msgspec.UNSET
    audio_data: Raw | msgspec.UnsetType = msgspec.UNSET
    format: Name | None = None
    sample_rate: SampleRate | None = None

    def as_json(self) -> Raw:
        """The sound, a JSON string in base64. Raises ValidationFailed if there is none."""
        data = self.audio_data if isinstance(self.data, msgspec.UnsetType) else self.data
        if isinstance(data, msgspec.UnsetType) or bytes(data)[:1] != b'"':
            raise ValidationFailed("data must be a string.", field="data")
        return data

    @property
    def may_begin(self) -> bool:
        """Whether the beginning of a stream that is known may be in it."""
        data = bytes(self.as_json())
        return data[:6] in _BEGINNINGS or len(data) <= _SHORT

    def as_bytes(self) -> bytes | None:
        """The sound as it is; None if `data` is not base64."""
        try:
            return base64.b64decode(msgspec.json.decode(self.as_json(), type=str), validate=True)
        except (binascii.Error, ValueError):
            return None


class Ping(ClientMessage, tag="ping", frozen=True):
    sequence: SafeInteger = 0


class Pong(ClientMessage, tag="pong", frozen=True):
    """Accepted and ignored: some clients answer what they take for the server's ping."""


class LeaveChannel(ChannelRequest, tag="leave_channel", frozen=True):
    is_addition = True


class Unpair(ChannelRequest, tag="unpair", frozen=True):
    is_addition = True


class PairingConfirm(ChannelRequest, tag="pairing_confirm", frozen=True):
    """The desktop accepts the phone that `pairing_request` has named."""

    is_addition = True


class PairingReject(ChannelRequest, tag="pairing_reject", frozen=True):
    """The desktop rejects that phone."""

    is_addition = True


class RefreshToken(ClientMessage, tag="refresh_token", frozen=True):
    is_addition = True

    token: Token


_FIELD = re.compile(r"^(?P<text>.*?) - at (?:`key` in )?`\$\.?(?P<field>[A-Za-z_]*)", re.DOTALL)
_FOREIGN_TYPE = re.compile(r"Invalid value '(.*)' - at `\$\.type`", re.DOTALL)
DECODE_ERRORS = (msgspec.DecodeError, RecursionError, ValueError)


class RequestDecoder:
    """Decodes text frames into the given structs; `large`: those whose frames may be large."""

    def __init__(self, structs: Sequence[type[ClientMessage]], large: Sequence[type[ClientMessage]]) -> None:
        self.decode_json = _decode_any(structs)
        self._decode_large = _decode_any(large)
        self._types = {struct.__struct_config__.tag for struct in structs}

    def decode(self, text: str) -> ClientMessage:
        """The message in one text frame.

        Raises InvalidMessage (no JSON object with a type), UnknownType (a type clients do not send), or
        ValidationFailed with the `field` that is wrong.
        """
        try:
            return self.decode_json(text)
        except DECODE_ERRORS as error:
            raise self.refusal_of(error) from None

    def decode_large(self, text: str, limits: ConnectionLimits) -> ClientMessage:
        """As `decode`, for a frame that is larger than most types may be: raises PayloadTooLarge for those at once.

        Settings of a hundred thousand keys would take thirty milliseconds to read.
        """
        try:
            return self._decode_large(text)
        except DECODE_ERRORS as error:
            if _type_in(str(error)) in self._types:
                raise PayloadTooLarge(limit=limits.control_size, size=size_of(text)) from None
            raise self.refusal_of(error) from None

    def refusal_of(self, error: Exception) -> PairingServerError:
        if not isinstance(error, msgspec.ValidationError):
            return InvalidMessage(f"{InvalidMessage.message} {_first_line(error)}")
        text = str(error)
        found = _FIELD.match(text)
        if found is None:
            if "missing required field" in text and "`type`" not in text:
                return ValidationFailed(f"{text}.", field=text.rpartition("field `")[2].rstrip("`"))
            return InvalidMessage(f"{InvalidMessage.message} {text[:120]}.")
        if found["field"] != "type":
            return ValidationFailed(f"{found['text']}.", field=found["field"])
        if (given := _type_in(text)) is None or given in self._types:
            return ValidationFailed("type must be a string, given once.", field="type")
        return UnknownType()


def _decode_any(structs: Sequence[type[ClientMessage]]) -> Callable[[str], ClientMessage]:
    # A union made at run time is no type to mypy.
    union: Any = reduce(or_, structs)
    decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(union)
    return decoder.decode


def _first_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "It is nested too deeply."
    return f"{str(error).splitlines()[0][:120]}."


def _type_in(text: str) -> str | None:
    """The type that is not one of the decoder's, if that is what it says."""
    found = _FOREIGN_TYPE.fullmatch(text)
    return found[1] if found else None


def size_of(frame: str | bytes) -> int:
    """The bytes of a frame."""
    return len(frame) if isinstance(frame, bytes) or frame.isascii() else len(frame.encode())


def check_audio(request: AudioChunk, limits: ConnectionLimits) -> None:
    """Raises ValidationFailed if there is no sound."""
    request.as_json()


def check_settings(request: SettingsSync, limits: ConnectionLimits) -> None:
    """Raises ValidationFailed for too many keys, or too deep values."""
    settings = request.settings
    if len(settings) > limits.settings_keys:
        raise ValidationFailed(f"settings have more than {limits.settings_keys} keys.", field="settings")
    # The document is one level above its values.
    if any(too_deep(bytes(value), limits.nesting - 1) for value in settings.values()):
        raise ValidationFailed(f"settings are nested more than {limits.nesting} deep.", field="settings")

"""What clients say on the WebSocket: structs tagged by `type`, decoded and checked. No I/O.

What the members say to each other (`payload`, `settings`, `data`) stays raw JSON and is forwarded as it
came. What the server says is in messages.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Literal

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


# None of them holds anything that could hold it in turn: the garbage collector need not look.
class ClientMessage(msgspec.Struct, tag_field="type", frozen=True, gc=False):
    """What a client may send. Unknown fields are ignored."""


class _AboutChannel(ClientMessage, frozen=True):
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


class JoinChannel(_AboutChannel, tag="join_channel", frozen=True, kw_only=True):
    device_type: DeviceType | None = None
    session_id: SessionId | None = None
    last_seq: Count | None = None
    epoch: Name | None = None
    binary_audio: bool = False


class ChannelMessage(_AboutChannel, tag="channel_message", frozen=True, kw_only=True):
    payload: Raw
    id: Name | SafeInteger | None = None
    again: bool = False


class SettingsSync(_AboutChannel, tag="settings_sync", frozen=True, kw_only=True):
    settings: dict[SettingName, Raw]
    base_rev: Count | None = None
    fill: bool = False


# Of a JSON string in base64: how those of known streams begin, and the length of one that is too short to tell.
_BEGINNINGS = (b'"GkXfo', b'"T2dnU')
_SHORT = len(b'"T2dnUwA="')


class AudioChunk(_AboutChannel, tag="audio_chunk", frozen=True, kw_only=True):
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


class LeaveChannel(_AboutChannel, tag="leave_channel", frozen=True):
    pass


class Unpair(_AboutChannel, tag="unpair", frozen=True):
    pass


class PairingConfirm(_AboutChannel, tag="pairing_confirm", frozen=True):
    """The desktop wants the phone that `pairing_request` has told it of."""


class PairingReject(_AboutChannel, tag="pairing_reject", frozen=True):
    """It does not."""


class RefreshToken(ClientMessage, tag="refresh_token", frozen=True):
    token: Token


Request = (
    Identify
    | JoinChannel
    | ChannelMessage
    | SettingsSync
    | AudioChunk
    | Ping
    | Pong
    | LeaveChannel
    | Unpair
    | PairingConfirm
    | PairingReject
    | RefreshToken
)

_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
# What may be large. All the others are small, and are not to be built from a large frame just to be refused.
_large_decoder: msgspec.json.Decoder[ChannelMessage | AudioChunk] = msgspec.json.Decoder(
    ChannelMessage | AudioChunk
)

_FIELD = re.compile(r"^(?P<text>.*?) - at (?:`key` in )?`\$\.?(?P<field>[A-Za-z_]*)", re.DOTALL)
_FOREIGN_TYPE = re.compile(r"Invalid value '(.*)' - at `\$\.type`", re.DOTALL)
_TYPES = {struct.__struct_config__.tag for struct in Request.__args__}


def decode(text: str) -> Request:
    """The message in one text frame.

    Raises InvalidMessage (no JSON object with a type), UnknownType (a type clients do not send), or
    ValidationFailed with the `field` that is wrong.
    """
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidMessage(f"{InvalidMessage.message} {_first_line(error)}") from None


def decode_large(text: str, limits: ConnectionLimits) -> Request:
    """As `decode`, for a frame that is larger than most types may be: raises PayloadTooLarge for those at once.

    Settings of a hundred thousand keys would take thirty milliseconds to read.
    """
    try:
        return _large_decoder.decode(text)
    except msgspec.ValidationError as error:
        if _type_in(str(error)) in _TYPES:
            raise PayloadTooLarge(limit=limits.control_size, size=size_of(text)) from None
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InvalidMessage(f"{InvalidMessage.message} {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "It is nested too deeply."
    return f"{str(error).splitlines()[0][:120]}."


def _refusal(text: str) -> PairingServerError:
    found = _FIELD.match(text)
    if found is None:
        if "missing required field" in text and "`type`" not in text:
            return ValidationFailed(f"{text}.", field=text.rpartition("field `")[2].rstrip("`"))
        return InvalidMessage(f"{InvalidMessage.message} {text[:120]}.")
    if found["field"] != "type":
        return ValidationFailed(f"{found['text']}.", field=found["field"])
    if (given := _type_in(text)) is None or given in _TYPES:
        return ValidationFailed("type must be a string, given once.", field="type")
    return UnknownType()


def _type_in(text: str) -> str | None:
    """The type that is not one of the decoder's, if that is what it says."""
    found = _FOREIGN_TYPE.fullmatch(text)
    return found[1] if found else None


def size_of(text: str) -> int:
    """The bytes of a text frame."""
    return len(text) if text.isascii() else len(text.encode())


def check(request: Request, size: int, limits: ConnectionLimits) -> None:
    """What the types cannot say of a request: sizes by kind, and what a raw value is. (Of a payload, the envelope.)

    Raises PayloadTooLarge with `limit` and `size`, or ValidationFailed with the `field`.
    """
    if isinstance(request, ChannelMessage):
        check_size(size, limits.message_size)
    elif isinstance(request, AudioChunk):
        check_size(size, limits.audio_size)
        request.as_json()
    else:
        check_size(size, limits.control_size)
        if isinstance(request, SettingsSync):
            _check_settings(request.settings, limits)


def check_size(size: int, limit: int) -> None:
    if size > limit:
        raise PayloadTooLarge(limit=limit, size=size)


def _check_settings(settings: Mapping[str, Raw], limits: ConnectionLimits) -> None:
    if len(settings) > limits.settings_keys:
        raise ValidationFailed(f"settings have more than {limits.settings_keys} keys.", field="settings")
    # The document is one level above its values.
    if any(too_deep(bytes(value), limits.nesting - 1) for value in settings.values()):
        raise ValidationFailed(f"settings are nested more than {limits.nesting} deep.", field="settings")

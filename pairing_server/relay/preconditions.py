"""What must be true of a connection before a request of it is handled. No I/O."""

from __future__ import annotations

from typing import Protocol

from pairing_server.errors import DeviceTypeMismatch, Forbidden, NotInChannel, ValidationFailed
from pairing_server.relay import requests
from pairing_server.relay.channel import Channel
from pairing_server.relay.identity import Device, Identity


class Sender(Protocol):
    """The connection that a request comes from. `device`: what it has said it is."""

    device: Device | None
    channel: Channel | None

    @property
    def identity(self) -> Identity: ...

    def joined_channel(self, request: requests.ChannelRequest, /) -> Channel:
        """The joined channel. Raises NotInChannel, or InvalidChannel if the request names another."""


def check_joined(sender: Sender, request: requests.ChannelRequest) -> None:
    """Raises NotInChannel or InvalidChannel."""
    sender.joined_channel(request)


def check_identify(sender: Sender, request: requests.Identify) -> None:
    """Raises DeviceTypeMismatch or ValidationFailed."""
    _check_device(sender, request.device_type, request.session_id)


def check_join(sender: Sender, request: requests.JoinChannel) -> None:
    """Raises DeviceTypeMismatch or ValidationFailed."""
    if request.channel_named is None:
        raise ValidationFailed("channel is missing.", field="channel")
    session_id = request.session_id or (sender.device.session_id if sender.device else None)
    if session_id is None:
        raise ValidationFailed("session_id is missing; identify first or name it here.", field="session_id")
    _check_device(sender, request.device_type or sender.identity.device_type, session_id)


def check_pairing_answer(sender: Sender, request: requests.ChannelRequest) -> None:
    """Raises Forbidden, NotInChannel or ValidationFailed."""
    if sender.identity.device_type != "desktop":
        raise Forbidden("The desktop that shows the code answers this.")
    if sender.device is None:
        raise NotInChannel("Identify or join first.")
    if request.channel_named is None and sender.channel is None:
        raise ValidationFailed("channel is missing.", field="channel")


def _check_device(sender: Sender, device_type: str, session_id: str) -> None:
    of_token = sender.identity.device_type
    if device_type != of_token:
        raise DeviceTypeMismatch(device_type=device_type, token_device_type=of_token)
    if sender.device is not None and sender.device.session_id != session_id:
        raise ValidationFailed("This connection has another session_id already.", field="session_id")

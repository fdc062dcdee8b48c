"""What a session cannot do itself and returns to the edge, for the services; and whether it may be asked for now. No I/O."""

from __future__ import annotations

from pairing_server.errors import DeviceTypeMismatch, Forbidden, NotInChannel, ValidationFailed
from pairing_server.relay import requests
from pairing_server.relay.identity import Device, Identity

# What depends on who asks, and not on being joined.
Asked = (
    requests.Identify
    | requests.JoinChannel
    | requests.PairingConfirm
    | requests.PairingReject
    | requests.RefreshToken
)
Deferred = Asked | requests.LeaveChannel | requests.Unpair


def check_asked(request: Asked, identity: Identity, device: Device | None, *, joined: bool) -> None:
    """Raises DeviceTypeMismatch, Forbidden, NotInChannel or ValidationFailed.

    `device`: what the connection has said it is; `joined`: whether it is in a channel.
    """
    match request:
        case requests.Identify():
            _check_device(identity, device, request.device_type, request.session_id)
        case requests.JoinChannel():
            _check_join(identity, device, request)
        case requests.PairingConfirm() | requests.PairingReject():
            _check_answer(identity, device, request, joined=joined)


def _check_device(identity: Identity, device: Device | None, device_type: str, session_id: str) -> None:
    if device_type != identity.device_type:
        raise DeviceTypeMismatch(device_type=device_type, token_device_type=identity.device_type)
    if device is not None and device.session_id != session_id:
        raise ValidationFailed("This connection has another session_id already.", field="session_id")


def _check_join(identity: Identity, device: Device | None, request: requests.JoinChannel) -> None:
    if request.channel_named is None:
        raise ValidationFailed("channel is missing.", field="channel")
    session_id = request.session_id or (device.session_id if device else None)
    if session_id is None:
        raise ValidationFailed("session_id is missing; identify first or name it here.", field="session_id")
    _check_device(identity, device, request.device_type or identity.device_type, session_id)


def _check_answer(
    identity: Identity,
    device: Device | None,
    request: requests.PairingConfirm | requests.PairingReject,
    *,
    joined: bool,
) -> None:
    if identity.device_type != "desktop":
        raise Forbidden("The desktop that shows the code answers this.")
    if device is None:
        raise NotInChannel("Identify or join first.")
    if request.channel_named is None and not joined:
        raise ValidationFailed("channel is missing.", field="channel")

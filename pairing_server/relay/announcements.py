"""What a channel tells its members of itself and of each other, encoded. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw

from pairing_server.relay import messages
from pairing_server.relay.members import Member
from pairing_server.relay.messages import encode


class Announcements:
    """Those of one channel: each names it, in either spelling."""

    def __init__(self, channel: str) -> None:
        """`channel`: its name."""
        self._channel = channel

    def welcome(
        self,
        *,
        devices: Sequence[str],
        settings: Mapping[str, Raw],
        rev: int,
        epoch: str,
        seq: int,
        last_seq: int,
        recovered: bool,
        degraded: bool,
    ) -> bytes:
        """To a member that has joined."""
        return encode(
            messages.ChannelJoined(
                channel=self._channel,
                channelId=self._channel,
                devices=list(devices),
                settings=dict(settings),
                rev=rev,
                epoch=epoch,
                seq=seq,
                last_seq=last_seq,
                recovered=recovered,
                degraded=degraded,
            )
        )

    def came(self, member: Member) -> bytes:
        """To the other, of a member that has joined."""
        return encode(
            messages.ClientJoined(
                channel=self._channel,
                channelId=self._channel,
                client_id=member.session_id,
                device_type=member.device_type,
            )
        )

    def together(self, devices: Sequence[str]) -> bytes:
        """To both, when they have met."""
        return encode(
            messages.PairingSuccess(
                channel=self._channel,
                channelId=self._channel,
                code=self._channel.removeprefix("pair-"),
                message="Devices paired successfully",
                devices=list(devices),
            )
        )

    def left(self, session_id: str, role: str, reason: str, *, for_good: bool) -> bytes:
        """To the other, of a member that has left."""
        kind = messages.DesktopDisconnected if role == "desktop" else messages.MobileDisconnected
        return encode(
            kind(
                channel=self._channel,
                channelId=self._channel,
                reason=reason,
                force_disconnect=for_good,
                client_id=session_id,
                device_type=role,
            )
        )

    def audio_gap(self, first: int, last: int) -> bytes:
        """To a receiver, of the chunks that it will not get."""
        return encode(
            messages.AudioGap(
                channel=self._channel, channelId=self._channel, from_=first, to=last, reason="slow_consumer"
            )
        )

    def intruder(self, device_type: str, members: int) -> bytes:
        """To both, of somebody else who has tried to join."""
        return encode(
            messages.IntruderRefused(
                channel=self._channel,
                channelId=self._channel,
                device_type=device_type,
                current_devices=members,
            )
        )

    def slow(self, device_type: str) -> bytes:
        """To the other, of a member that does not read fast enough."""
        return encode(
            messages.PeerSlow(channel=self._channel, channelId=self._channel, device_type=device_type)
        )

    def closed(self, reason: str) -> bytes:
        """To both, when the channel is closed for good."""
        return encode(messages.ChannelClosed(channel=self._channel, channelId=self._channel, reason=reason))

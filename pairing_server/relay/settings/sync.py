"""A channel's settings on their way to its members. What is merged, and when a doubt has to be settled, settings.py says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Raw

from pairing_server.relay import requests
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.members import Member
from pairing_server.relay.messages import SettingsDocumentMessage, encode
from pairing_server.relay.send_queue import Lane
from pairing_server.relay.settings.document import Merge, SettingsDocument, SettingsSnapshot

# Runs a call after that many seconds of the loop's time.
Later = Callable[[float, Callable[[], None]], object]


class SettingsSynchronizer:
    """The settings that the members share. `members`: by role, who is there; the channel keeps it."""

    def __init__(
        self,
        channel: str,
        members: Mapping[str, Member],
        limits: ConnectionLimits,
        later: Later,
        kept: SettingsSnapshot | None,
    ) -> None:
        """`channel`: its name; `kept`: the settings that an earlier life of it has left."""
        self._channel = channel
        self._members = members
        self._later = later
        self._document = SettingsDocument(kept, max_keys=limits.settings_keys, max_bytes=limits.control_size)
        self._timer: float | None = None
        self._over = False

    @property
    def rev(self) -> int:
        return self._document.rev

    def now(self) -> SettingsSnapshot:
        """The settings as they are to be kept."""
        return self._document.now()

    def raw(self) -> dict[str, Raw]:
        """The whole document, its values as they came."""
        return {key: Raw(value) for key, value in self._document.raw().items()}

    def merge(self, role: str, request: requests.SettingsSync, now: float) -> Merge | None:
        """Merge what that member has edited; None if there is nothing new.

        Raises ValidationFailed or PayloadTooLarge if the merged document would be over its bounds.
        """
        values = {key: bytes(value) for key, value in request.settings.items()}
        return self._document.sync(role, values, now, request.base_rev, fill=request.fill)

    def pass_on(self, merge: Merge, peer: Member, seq: int, now: float) -> bool:
        """Send the peer the whole document, under that number; whether its outbox is congested then."""
        congested = peer.send_queue.send(self._encoded(merge.changed, seq), Lane.SETTINGS)
        self._document.delivered(peer.device_type, now)
        return congested

    def send(self, member: Member, now: float) -> None:
        """Send the member the whole document, if there is one."""
        if self._document.rev:
            member.deliver(self._encoded(), Lane.SETTINGS)
            self._document.delivered(member.device_type, now)

    def _encoded(self, changed: tuple[str, ...] = (), seq: int | None = None) -> bytes:
        return encode(
            SettingsDocumentMessage(
                channel=self._channel,
                channelId=self._channel,
                settings=self.raw(),
                changed=list(changed),
                rev=self._document.rev,
                seq=seq,
            )
        )

    def forget(self, role: str) -> None:
        """That seat's session is on a new socket: what was under way to it is lost."""
        self._document.forget(role)

    def schedule(self, now: float) -> None:
        """Look again when a doubt is due to be settled. Call after every `merge`."""
        due = self._document.settle_at
        if due is None or self._over or (self._timer is not None and self._timer <= due):
            return
        self._timer = due

        def settle() -> None:
            if self._timer == due:
                self._timer = None
            self.settle(due)

        self._later(max(0.0, due - now), settle)

    def settle(self, now: float) -> None:
        """Send the document to whoever may hold another, if edits crossed and nothing has happened for a moment."""
        if self._over:
            return
        for role in self._document.settle(now):
            if member := self._members.get(role):
                self.send(member, now)
        self.schedule(now)

    def stop(self) -> None:
        """The channel is closed: nothing is settled any more."""
        self._over = True

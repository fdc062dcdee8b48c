"""A channel's settings document on its way to its members. What is merged and what is sent again: document.py."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from pairing_server.relay import requests
from pairing_server.relay.context import RelayContext
from pairing_server.relay.members import Member
from pairing_server.relay.messages import SettingsDocumentMessage, encode
from pairing_server.relay.send_queue import Lane
from pairing_server.relay.settings.document import Merge, SettingsDocument, SettingsSnapshot


class SettingsSynchronizer:
    """Merges what members send and sends them the document. `members`: by role; the channel changes it."""

    def __init__(
        self,
        channel: str,
        members: Mapping[str, Member],
        context: RelayContext,
        saved: SettingsSnapshot | None,
    ) -> None:
        """`channel`: its name; `saved`: the settings that an earlier channel of this pairing has left."""
        limits = context.limits
        self._channel = channel
        self._members = members
        self._call_later = context.call_later
        self._document = SettingsDocument(saved, max_keys=limits.settings_keys, max_bytes=limits.control_size)
        self._timer: float | None = None
        self._stopped = False

    @property
    def rev(self) -> int:
        return self._document.rev

    def snapshot(self) -> SettingsSnapshot:
        """The settings as they are to be saved."""
        return self._document.snapshot()

    def raw(self) -> dict[str, Raw]:
        """The whole document, its values as they came."""
        return {key: Raw(value) for key, value in self._document.raw().items()}

    def merge(self, role: str, request: requests.SettingsSync, now: float) -> Merge | None:
        """Merge what that member has edited; None if there is nothing new.

        Raises ValidationFailed or PayloadTooLarge if the merged document would be over its limits.
        """
        values = {key: bytes(value) for key, value in request.settings.items()}
        return self._document.merge(role, values, now, request.base_rev, fill=request.fill)

    def pass_on(self, merge: Merge, peer: Member, seq: int, now: float) -> bool:
        """Send the peer the whole document, under that number; whether too much waits for the peer then."""
        congested = peer.send(self._encoded(merge.changed, seq), Lane.SETTINGS)
        self._document.note_delivery(peer.device_type, now)
        return congested

    def send(self, member: Member, now: float) -> None:
        """Send the member the whole document, if there is one."""
        if self._document.rev:
            member.send(self._encoded(), Lane.SETTINGS)
            self._document.note_delivery(member.device_type, now)

    def _encoded(self, changed: tuple[str, ...] = (), seq: int | None = None) -> bytes:
        return encode(
            SettingsDocumentMessage(
                channel=self._channel,
                settings=self.raw(),
                changed=list(changed),
                rev=self._document.rev,
                seq=seq,
            )
        )

    def note_reconnect(self, role: str) -> None:
        """That seat's device is on a new connection: what was under way to it is lost."""
        self._document.note_reconnect(role)

    def schedule(self, now: float) -> None:
        """Set the timer for `settle`. Call after every `merge`."""
        due = self._document.settle_at
        if due is None or self._stopped or (self._timer is not None and self._timer <= due):
            return
        self._timer = due

        def settle() -> None:
            if self._timer == due:
                self._timer = None
            self.settle(due)

        self._call_later(max(0.0, due - now), settle)

    def settle(self, now: float) -> None:
        """Send the document to members that may hold another, if edits crossed and nothing has come for a moment."""
        if self._stopped:
            return
        for role in self._document.settle(now):
            if member := self._members.get(role):
                self.send(member, now)
        self.schedule(now)

    def stop(self) -> None:
        """The channel is closed: nothing is sent again."""
        self._stopped = True

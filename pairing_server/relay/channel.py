"""One pairing's live state: members, order, history, settings. The only writer of it.

It is called by messages and calls its members' `deliver`; it knows no sockets, no SQL and no clock.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from uuid import UUID

from msgspec import Raw

from pairing_server.errors import PairingServerError, SessionReplaced
from pairing_server.relay import messages, requests
from pairing_server.relay.binary import BinaryAudio
from pairing_server.relay.closing import CloseCode
from pairing_server.relay.history import History
from pairing_server.relay.limits import RelayLimits, TokenBucket
from pairing_server.relay.messages import encode
from pairing_server.relay.outbox import Lane, Outbox
from pairing_server.relay.settings import Kept, SettingsDocument
from pairing_server.relay.streaming import Streaming

OTHER = {"desktop": "mobile", "mobile": "desktop"}
# An enumeration's member takes longer to look up than a message to number.
_MESSAGE = Lane.MESSAGE

# Runs a call after that many seconds of the loop's time.
Later = Callable[[float, Callable[[], None]], object]


class Member(Protocol):
    """A device in its seat, as the channel sees it."""

    outbox: Outbox
    binary_audio: bool
    device_type: str

    @property
    def session_id(self) -> str: ...

    @property
    def subject(self) -> str: ...

    def deliver(
        self, message: bytes, lane: Lane = Lane.MESSAGE, number: int = 0, *, binary: bool = False
    ) -> None:
        """Put an encoded message into what waits for this member."""

    def evict(self, error: PairingServerError | None, code: CloseCode | None) -> None:
        """The member is out of the channel: tell it why, and close its socket if there is a code."""


@dataclass(slots=True)
class Counts:
    """What the relay has done since the start; metrics read it."""

    channel_messages: int = 0
    audio_chunks: int = 0
    settings_syncs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    echoes: int = 0
    audio_dropped: int = 0
    settings_replaced: int = 0
    messages_given_up: int = 0
    connections_opened: int = 0

    def gone(self, outbox: Outbox) -> None:
        """A connection is closed: what its outbox has counted is kept here."""
        self.settings_replaced += outbox.replaced
        self.messages_given_up += outbox.given_up

    def dropped(self, outboxes: Sequence[Outbox]) -> dict[str, int]:
        """What was not sent to slow receivers, by lane; `outboxes` are those of the open connections."""
        return {
            "audio": self.audio_dropped,
            "settings": self.settings_replaced + sum(outbox.replaced for outbox in outboxes),
            "message": self.messages_given_up + sum(outbox.given_up for outbox in outboxes),
        }

    @property
    def relayed(self) -> dict[str, int]:
        """What has reached a peer's outbox or the history, by message type."""
        return {
            "channel_message": self.channel_messages,
            "audio_chunk": self.audio_chunks,
            "settings_sync": self.settings_syncs,
        }


class Holder(NamedTuple):
    """Whose seat it is: a user's device."""

    subject: str
    session_id: str


class Joined(NamedTuple):
    """`fresh`: the member was not in before. `activated`: now both are, and were not before."""

    fresh: bool
    activated: bool


class Channel:
    def __init__(
        self,
        pairing_id: UUID,
        name: str,
        limits: RelayLimits,
        counts: Counts,
        later: Later,
        now: float,
        *,
        ever_active: bool = False,
        kept: Kept | None = None,
    ) -> None:
        """`kept`: the settings that an earlier life of it has left."""
        self.pairing_id = pairing_id
        self.name = name
        self._envelope = messages.Envelope(name, limits.nesting)
        self.epoch = secrets.token_urlsafe(9)
        self.seq = 0
        self.history = History(limits)
        # By role, the seq up to which its session has been sent everything.
        self._sent = {"desktop": 0, "mobile": 0}
        self.members: dict[str, Member] = {}
        self.absent_since: dict[str, float] = {"desktop": now, "mobile": now}
        self.ever_active = ever_active
        # By role, who has been seen in the seat in this life of the channel.
        self.holders: dict[str, Holder] = {}
        self.closed = False
        self._intrusions = TokenBucket(1, 5, now)
        # By role, what it sends; made with its first chunk.
        self._streams: dict[str, Streaming] = {}
        self._settings = SettingsDocument(kept, max_keys=limits.settings_keys, max_bytes=limits.control_size)
        # The revision that is safe outside; whoever keeps the settings sets it.
        self.kept_rev = self._settings.rev
        self._settle_timer: float | None = None
        self._limits = limits
        self._counts = counts
        self._later = later

    @property
    def active(self) -> bool:
        return len(self.members) == 2

    @property
    def devices(self) -> list[str]:
        """The types of the connected devices, desktop first."""
        return sorted(self.members)

    @property
    def settings_rev(self) -> int:
        return self._settings.rev

    def settings_now(self) -> Kept:
        """The settings as they are to be kept."""
        return self._settings.now()

    def overdue(self, now: float, grace: float) -> bool:
        """Whether a member has been missing for longer than the grace (see Hub.overdue)."""
        if not self.absent_since or not (self.ever_active or not self.members):
            return False
        return now - max(self.absent_since.values()) > grace

    def knows(self, role: str, holder: Holder, now: float) -> bool:
        """Whether that device is in its seat, or has left it no longer ago than the grace."""
        if self.closed or self.holders.get(role) != holder:
            return False
        return now - self.absent_since.get(role, now) <= self._limits.reconnect_grace

    def join(
        self,
        member: Member,
        now: float,
        last_seq: int | None = None,
        epoch: str | None = None,
        *,
        degraded: bool = False,
    ) -> Joined:
        """Seat the member; the same session's older connection gives way to it.

        `degraded`: it was admitted from memory, since the database is away.

        The member gets `channel_joined`, what it has missed and the settings so far, the other
        `client_joined`, and both `pairing_success` when this has brought them together.
        """
        role = member.device_type
        before = self.members.get(role)
        was_active = self.active
        self.members[role] = member
        self.holders[role] = Holder(member.subject, member.session_id)
        self.absent_since.pop(role, None)
        fresh = before is not member
        if before is not None and fresh:
            before.evict(SessionReplaced(), CloseCode.REPLACED)
            self._note_sent(before)
        known = last_seq if epoch == self.epoch and last_seq is not None and last_seq <= self.seq else None
        # What was sent on this very connection is on its way, and not sent once more.
        served = (self._sent[role] if known is None else known) if fresh else self.seq
        since = self.history.kept_after(served, role)
        recovered = known is not None and known == self.history.kept_after(known, role)
        self._welcome(member, since, degraded=degraded, recovered=recovered)
        if fresh:
            for seq, message in self.history.after(since, role):
                member.outbox.send(message, Lane.MESSAGE, seq)
            if heard := self._streams.get(OTHER[role]):
                heard.newcomer = True
            self._settings.forget(role)
            self._send_settings(member, now)
            self._tell_other(member)
        activated = self.active and not was_active
        if activated:
            self.ever_active = True
            self._celebrate()
        return Joined(fresh, activated)

    def _welcome(self, member: Member, since: int, *, recovered: bool, degraded: bool) -> None:
        member.deliver(
            encode(
                messages.ChannelJoined(
                    channel=self.name,
                    channelId=self.name,
                    devices=self.devices,
                    settings={key: Raw(value) for key, value in self._settings.raw().items()},
                    rev=self._settings.rev,
                    epoch=self.epoch,
                    seq=self.seq,
                    last_seq=since,
                    recovered=recovered,
                    degraded=degraded,
                )
            )
        )

    def _tell_other(self, member: Member) -> None:
        if other := self.members.get(OTHER[member.device_type]):
            joined = messages.ClientJoined(
                channel=self.name,
                channelId=self.name,
                client_id=member.session_id,
                device_type=member.device_type,
            )
            other.deliver(encode(joined))

    def _celebrate(self) -> None:
        self._broadcast(
            messages.PairingSuccess(
                channel=self.name,
                channelId=self.name,
                code=self.name.removeprefix("pair-"),
                message="Devices paired successfully",
                devices=self.devices,
            )
        )

    def _broadcast(self, message: messages.ServerMessage) -> None:
        encoded = encode(message)
        for member in list(self.members.values()):
            member.deliver(encoded)

    def leave(self, member: Member, reason: str, now: float, *, force: bool = False) -> bool:
        """Take the member out and tell the other. False if its seat was not (or no longer) its own."""
        role = member.device_type
        if self.members.get(role) is not member:
            return False
        del self.members[role]
        self.absent_since[role] = now
        self._note_sent(member)
        if other := self.members.get(OTHER[role]):
            other.deliver(encode(self._disconnected(member.session_id, role, reason, force)))
        return True

    def _note_sent(self, member: Member) -> None:
        """It is gone: what it has not been sent waits for its return."""
        unsent = member.outbox.unsent
        self._sent[member.device_type] = self.seq if unsent is None else unsent - 1

    def _disconnected(self, session_id: str, role: str, reason: str, force: bool) -> messages.ServerMessage:
        kind = messages.DesktopDisconnected if role == "desktop" else messages.MobileDisconnected
        return kind(
            channel=self.name,
            channelId=self.name,
            reason=reason,
            force_disconnect=force,
            client_id=session_id,
            device_type=role,
        )

    def relay(
        self, sender: Member, payload: Raw | bytes, id_: str | int | None, again: bool = False
    ) -> Outbox | None:
        """Number the message, keep it, and pass it to the other member if that is there.

        One that is sent `again` under an id that is known is only acknowledged again. Like `audio` and `sync`,
        returns the other's outbox if that is congested. Raises ValidationFailed if the payload is no object, or
        nested too deep.
        """
        to = OTHER[sender.device_type]
        if again and id_ is not None and (known := self.history.number_of(id_, to)) is not None:
            sender.deliver(encode(messages.Ack(id=id_, seq=known)))
            return None
        seq = self.seq + 1
        message = self._envelope.wrap(payload, seq, id_)
        self.seq = seq
        self.history.add(seq, to, message, id_)
        self._counts.channel_messages += 1
        peer = self.members.get(to)
        congested = peer is not None and peer.outbox.send(message, _MESSAGE, seq)
        if id_ is not None:
            sender.deliver(encode(messages.Ack(id=id_, seq=seq)))
        return peer.outbox if peer is not None and congested else None

    def audio(self, sender: Member, request: requests.AudioChunk | BinaryAudio) -> Outbox | None:
        """Pass the chunk to the other member, if it is there: audio is live."""
        role = sender.device_type
        peer = self.members.get(OTHER[role])
        if role not in self._streams:
            self._streams[role] = Streaming(self.name)
        congested = self._streams[role].chunk(request, peer)
        if peer is None:
            return None
        self._counts.audio_chunks += 1
        return peer.outbox if congested else None

    def audio_gap(self, receiver: Member, first: int, last: int) -> None:
        """Chunks from `first` to `last` did not fit into what waits for the receiver: tell it."""
        self._counts.audio_dropped += last - first + 1
        # A decoder does not get over a hole: it gets the stream's beginning once more.
        if heard := self._streams.get(OTHER[receiver.device_type]):
            heard.newcomer = True
        gap = messages.AudioGap(
            channel=self.name, channelId=self.name, from_=first, to=last, reason="slow_consumer"
        )
        receiver.deliver(encode(gap))

    def sync(self, sender: Member, request: requests.SettingsSync, now: float) -> Outbox | None:
        """Merge the settings; pass the whole document on if anything has changed.

        Raises ValidationFailed or PayloadTooLarge if the merged document would be over its bounds.
        """
        role = sender.device_type
        values = {key: bytes(value) for key, value in request.settings.items()}
        merge = self._settings.sync(role, values, now, request.base_rev, fill=request.fill)
        peer = self.members.get(OTHER[role])
        congested = False
        if merge is None:
            self._counts.echoes += 1
        else:
            self.seq += 1
            self._counts.settings_syncs += 1
            if peer is not None:
                document = encode(self._document(merge.changed, self.seq))
                congested = peer.outbox.send(document, Lane.SETTINGS)
                self._settings.delivered(peer.device_type, now)
        self._schedule_settle(now)
        return peer.outbox if peer is not None and congested else None

    def _document(self, changed: tuple[str, ...] = (), seq: int | None = None) -> messages.ServerMessage:
        return messages.SettingsDocumentMessage(
            channel=self.name,
            channelId=self.name,
            settings={key: Raw(value) for key, value in self._settings.raw().items()},
            changed=list(changed),
            rev=self._settings.rev,
            seq=seq,
        )

    def _send_settings(self, member: Member, now: float) -> None:
        if self._settings.rev:
            member.deliver(encode(self._document()), Lane.SETTINGS)
            self._settings.delivered(member.device_type, now)

    def _schedule_settle(self, now: float) -> None:
        due = self._settings.settle_at
        if due is None or self.closed or (self._settle_timer is not None and self._settle_timer <= due):
            return
        self._settle_timer = due

        def settle() -> None:
            if self._settle_timer == due:
                self._settle_timer = None
            self.settle(due)

        self._later(max(0.0, due - now), settle)

    def settle(self, now: float) -> None:
        """Send the document to whoever may hold another, if edits crossed and nothing has happened for a moment."""
        if self.closed:
            return
        for role in self._settings.settle(now):
            if member := self.members.get(role):
                self._send_settings(member, now)
        self._schedule_settle(now)

    def refuse_intruder(self, device_type: str, now: float) -> None:
        """Somebody else has tried to join: tell the members, but not without end."""
        if self._intrusions.take(now):
            return
        self._broadcast(
            messages.IntruderRefused(
                channel=self.name,
                channelId=self.name,
                device_type=device_type,
                current_devices=len(self.members),
            )
        )

    def peer_slow(self, member: Member) -> None:
        """The member does not read fast enough and is being closed: tell the other."""
        if other := self.members.get(OTHER[member.device_type]):
            slow = messages.PeerSlow(channel=self.name, channelId=self.name, device_type=member.device_type)
            other.deliver(encode(slow))

    def end(self, reason: str, gone: Mapping[str, str], keep: str | None = None) -> None:
        """The channel is closed for good. `gone`: role → session id of each that is not to come back.

        The members are told who left for good, then that the channel is closed; their sockets close
        4410, but for that of the role to `keep`, which has a newer channel to join.
        """
        self.closed = True
        for role, session_id in gone.items():
            if other := self.members.get(OTHER[role]):
                other.deliver(encode(self._disconnected(session_id, role, reason, force=True)))
        self._broadcast(messages.ChannelClosed(channel=self.name, channelId=self.name, reason=reason))
        if keep in self.members:
            self.members.pop(keep).evict(None, None)
        self._evict_all(None, CloseCode.CHANNEL_CLOSED)

    def lapse(self, error: PairingServerError) -> None:
        """The code was never used: the waiting desktop is told, and may ask for another on the same socket."""
        self.closed = True
        self._evict_all(error, None)

    def _evict_all(self, error: PairingServerError | None, code: CloseCode | None) -> None:
        members, self.members = self.members, {}
        for member in members.values():
            member.evict(error, code)

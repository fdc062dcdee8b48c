"""One pairing's live state: members, order, history, settings. The only writer of it.

Members call it, and it calls their `send`; it knows no sockets, no SQL and no clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from pairing_server.errors import PairingServerError, SessionReplaced
from pairing_server.relay import messages, requests
from pairing_server.relay.audio.binary_frames import BinaryAudio
from pairing_server.relay.audio.forwarder import AudioForwarder
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.context import RelayContext
from pairing_server.relay.history import History
from pairing_server.relay.members import OTHER, Joined, Member, SeatOwner
from pairing_server.relay.messages import Ack, Envelope, encode
from pairing_server.relay.send_queue import Lane
from pairing_server.relay.settings.document import SettingsSnapshot
from pairing_server.relay.settings.sync import SettingsSynchronizer
from pairing_server.relay.token_bucket import TokenBucket

# Looking up an enumeration's member takes longer than numbering a message.
_MESSAGE = Lane.MESSAGE


class Channel:
    """`ever_active`: both devices have met, perhaps before a restart of this process.

    `seat_owners`: by role, the device last seen in the seat. `absent_since`: by role, since when its seat is empty.
    """

    def __init__(
        self,
        pairing_id: UUID,
        name: str,
        context: RelayContext,
        now: float,
        settings: SettingsSnapshot | None = None,
    ) -> None:
        """`settings`: those that were saved before this channel was opened."""
        self.pairing_id = pairing_id
        self.name = name
        self.epoch = secrets.token_urlsafe(9)
        self.seq = 0
        self.history = History(context.limits)
        self.members: dict[str, Member] = {}
        self.absent_since: dict[str, float] = {"desktop": now, "mobile": now}
        self.seat_owners: dict[str, SeatOwner] = {}
        self.ever_active = False
        self.closed = False
        self._envelope = Envelope(name, context.limits.nesting)
        # By role, the seq up to which its device has been sent everything.
        self._sent = {"desktop": 0, "mobile": 0}
        self._intrusions = TokenBucket(1, 5, now)
        # By sender's role; made with its first chunk.
        self._audio: dict[str, AudioForwarder] = {}
        self.settings = SettingsSynchronizer(name, self.members, context, settings)
        # The revision that is in the database; services/settings_documents.py sets it.
        self.saved_rev = self.settings.rev
        # What this process wrote last into the database as the moment at which a member was seen; services set it.
        self.seen_at: datetime | None = None
        self._limits = context.limits
        self._counters = context.counters

    @property
    def active(self) -> bool:
        return len(self.members) == 2

    @property
    def devices(self) -> list[str]:
        """The types of the connected devices, desktop first."""
        return sorted(self.members)

    def is_overdue(self, now: float, grace: float) -> bool:
        """Whether a member has been missing for longer than the grace (see Hub.overdue_channels)."""
        if not self.absent_since or not (self.ever_active or not self.members):
            return False
        return now - max(self.absent_since.values()) > grace

    def remembers(self, role: str, owner: SeatOwner, now: float) -> bool:
        """Whether that device is in its seat, or has left it no longer ago than the grace."""
        if self.closed or self.seat_owners.get(role) != owner:
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
        """Seat the member; it replaces an older connection of the same device.

        `degraded`: it was admitted from memory, since the database is away.

        The member gets `channel_joined`, what it has missed and the settings so far, the other
        `client_joined`, and both `pairing_success` when this has brought them together.
        """
        was_active = self.active
        fresh = self._seat(member)
        since = self._welcome(
            member, last_seq if epoch == self.epoch else None, fresh=fresh, degraded=degraded
        )
        if fresh:
            self._catch_up(member, since, now)
            if other := self.members.get(OTHER[member.device_type]):
                joined = messages.ClientJoined(
                    channel=self.name, client_id=member.session_id, device_type=member.device_type
                )
                other.send(encode(joined))
        activated = self.active and not was_active
        if activated:
            self.ever_active = True
            paired = messages.PairingSuccess(
                channel=self.name,
                code=self.name.removeprefix("pair-"),
                message="Devices paired successfully",
                devices=self.devices,
            )
            self._broadcast(paired)
        return Joined(fresh, activated)

    def _seat(self, member: Member) -> bool:
        """Whether it was not there before."""
        role = member.device_type
        before = self.members.get(role)
        self.members[role] = member
        self.seat_owners[role] = SeatOwner(member.subject, member.session_id)
        self.absent_since.pop(role, None)
        if before is not None and before is not member:
            before.remove_from_channel(SessionReplaced(), CloseCode.REPLACED)
            self._note_sent(before)
        return before is not member

    def _welcome(self, member: Member, last_seq: int | None, *, fresh: bool, degraded: bool) -> int:
        """Send `channel_joined`. The number after which the messages are to be sent. `last_seq`: in this epoch."""
        role = member.device_type
        known = last_seq if last_seq is not None and last_seq <= self.seq else None
        # What was sent on this very connection is on its way, and not sent once more.
        served = (self._sent[role] if known is None else known) if fresh else self.seq
        since = self.history.kept_after(served, role)
        welcome = messages.ChannelJoined(
            channel=self.name,
            devices=self.devices,
            settings=self.settings.raw(),
            rev=self.settings.rev,
            epoch=self.epoch,
            seq=self.seq,
            last_seq=since,
            recovered=known is not None and known == self.history.kept_after(known, role),
            degraded=degraded,
        )
        member.send(encode(welcome))
        return since

    def _catch_up(self, member: Member, since: int, now: float) -> None:
        """Send the messages after that number and the settings; the next audio chunk follows its stream's header."""
        role = member.device_type
        for seq, message in self.history.after(since, role):
            member.send(message, _MESSAGE, seq)
        if audio := self._audio.get(OTHER[role]):
            audio.header_needed = True
        self.settings.note_reconnect(role)
        self.settings.send(member, now)

    def _broadcast(self, message: messages.ServerMessage) -> None:
        encoded = encode(message)
        for member in list(self.members.values()):
            member.send(encoded)

    def _disconnected(self, role: str, session_id: str, reason: str, *, force: bool) -> bytes:
        """To the other member. `force`: it does not come back."""
        message = messages.DISCONNECTED[role](
            channel=self.name, reason=reason, force_disconnect=force, client_id=session_id, device_type=role
        )
        return encode(message)

    def leave(self, member: Member, reason: str, now: float, *, force: bool = False) -> bool:
        """Take the member out and notify the other. False if the seat was not, or no longer, its own."""
        role = member.device_type
        if self.members.get(role) is not member:
            return False
        del self.members[role]
        self.absent_since[role] = now
        self._note_sent(member)
        if other := self.members.get(OTHER[role]):
            other.send(self._disconnected(role, member.session_id, reason, force=force))
        return True

    def _note_sent(self, member: Member) -> None:
        """The member is gone: what it has not been sent waits for its return."""
        unsent = member.first_unsent
        self._sent[member.device_type] = self.seq if unsent is None else unsent - 1

    # Handlers of messages. Each returns the peer if too much waits for it now.

    def relay_message(self, sender: Member, request: requests.ChannelMessage, now: float) -> Member | None:
        """Number the message, keep it, and pass it to the other member if that is there.

        One that is sent `again` under an id that is known is only acknowledged again. Raises ValidationFailed if
        the payload is no object, or nested too deep.
        """
        to, id_ = OTHER[sender.device_type], request.id
        if request.again and id_ is not None and (known := self.history.number_of(id_, to)) is not None:
            sender.send(encode(Ack(id=id_, seq=known)))
            return None
        seq = self.seq + 1
        message = self._envelope.wrap(request.payload, seq, id_)
        self.seq = seq
        self.history.add(seq, to, message, id_)
        self._counters.channel_messages += 1
        peer = self.members.get(to)
        congested = peer is not None and peer.send(message, _MESSAGE, seq)
        if id_ is not None:
            sender.send(encode(Ack(id=id_, seq=seq)))
        return peer if congested else None

    def forward_audio(
        self, sender: Member, request: requests.AudioChunk | BinaryAudio, now: float
    ) -> Member | None:
        """Pass the chunk to the other member, if it is there: audio is live."""
        role = sender.device_type
        peer = self.members.get(OTHER[role])
        if role not in self._audio:
            self._audio[role] = AudioForwarder(self.name)
        congested = self._audio[role].forward(request, peer)
        if peer is None:
            return None
        self._counters.audio_chunks += 1
        return peer if congested else None

    def sync_settings(self, sender: Member, request: requests.SettingsSync, now: float) -> Member | None:
        """Merge the settings; pass the whole document on if anything has changed.

        Raises ValidationFailed or PayloadTooLarge if the merged document would be over its limits.
        """
        merge = self.settings.merge(sender.device_type, request, now)
        peer = self.members.get(OTHER[sender.device_type])
        congested = False
        if merge is None:
            self._counters.echoes += 1
        else:
            self.seq += 1
            self._counters.settings_syncs += 1
            congested = peer is not None and self.settings.pass_on(merge, peer, self.seq, now)
        self.settings.schedule(now)
        return peer if congested else None

    # Announcements to members

    def announce_audio_gap(self, receiver: Member, first: int, last: int) -> None:
        """The chunks from `first` to `last` did not fit into the receiver's queue."""
        self._counters.audio_dropped += last - first + 1
        # A decoder does not get over a gap: it needs the stream's header once more.
        if audio := self._audio.get(OTHER[receiver.device_type]):
            audio.header_needed = True
        gap = messages.AudioGap(channel=self.name, from_=first, to=last, reason="slow_consumer")
        receiver.send(encode(gap))

    def announce_intruder(self, device_type: str, now: float) -> None:
        """Another device has tried to join: notify the members, but not without limit."""
        if not self._intrusions.take(now):
            devices = len(self.members)
            self._broadcast(
                messages.IntruderRefused(channel=self.name, device_type=device_type, current_devices=devices)
            )

    def announce_slow(self, member: Member) -> None:
        """The member does not read fast enough and is being closed: notify the other."""
        if other := self.members.get(OTHER[member.device_type]):
            other.send(encode(messages.PeerSlow(channel=self.name, device_type=member.device_type)))

    # The end

    def end(self, reason: str, gone: Mapping[str, str], keep: str | None = None) -> None:
        """The channel is closed for good. `gone`: role → session id of each device that will not come back.

        The members get who left for good, then `channel_closed`; their sockets close with 4410, but for that of the
        role to `keep`, which has a newer channel to join.
        """
        self._close()
        for role, session_id in gone.items():
            if other := self.members.get(OTHER[role]):
                other.send(self._disconnected(role, session_id, reason, force=True))
        self._broadcast(messages.ChannelClosed(channel=self.name, reason=reason))
        if keep in self.members:
            self.members.pop(keep).remove_from_channel(None, None)
        self._remove_members(None, CloseCode.CHANNEL_CLOSED)

    def cancel(self, error: PairingServerError) -> None:
        """The code was never used: the waiting desktop gets the error, and may request a new code on the same socket."""
        self._close()
        self._remove_members(error, None)

    def move(self, joined: Collection[str]) -> None:
        """The pairing goes on in a channel of another server, which the devices of these roles have joined.

        A member whose device is there is replaced; any other connects again, and then finds that channel.
        """
        self._close()
        members = dict(self.members)
        self.members.clear()
        for role, member in members.items():
            if role in joined:
                member.remove_from_channel(SessionReplaced(), CloseCode.REPLACED)
            else:
                member.remove_from_channel(None, CloseCode.RESTART)

    def _close(self) -> None:
        self.closed = True
        self.settings.stop()

    def _remove_members(self, error: PairingServerError | None, code: CloseCode | None) -> None:
        members = list(self.members.values())
        self.members.clear()
        for member in members:
            member.remove_from_channel(error, code)

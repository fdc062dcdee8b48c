"""One pairing's live state: members, order, history, settings. The only writer of it.

It is called by messages and calls its members' `deliver`; it knows no sockets, no SQL and no clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from uuid import UUID

from msgspec import Raw

from pairing_server.errors import PairingServerError, SessionReplaced
from pairing_server.relay import requests
from pairing_server.relay.announcements import Announcements
from pairing_server.relay.audio.binary_frames import BinaryAudio
from pairing_server.relay.audio.forwarder import AudioForwarder
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.counters import Counters
from pairing_server.relay.history import History
from pairing_server.relay.members import OTHER, Joined, Member, SeatOwner
from pairing_server.relay.messages import Ack, Envelope, encode
from pairing_server.relay.send_queue import Lane, SendQueue
from pairing_server.relay.settings.document import SettingsSnapshot
from pairing_server.relay.settings.sync import Later, SettingsSynchronizer
from pairing_server.relay.token_bucket import TokenBucket

# An enumeration's member takes longer to look up than a message to number.
_MESSAGE = Lane.MESSAGE


class Channel:
    def __init__(
        self,
        pairing_id: UUID,
        name: str,
        limits: ConnectionLimits,
        counters: Counters,
        later: Later,
        now: float,
        *,
        ever_active: bool = False,
        kept: SettingsSnapshot | None = None,
    ) -> None:
        """`kept`: the settings that an earlier life of it has left."""
        self.pairing_id = pairing_id
        self.name = name
        self._envelope = Envelope(name, limits.nesting)
        self._say = Announcements(name)
        self.epoch = secrets.token_urlsafe(9)
        self.seq = 0
        self.history = History(limits)
        # By role, the seq up to which its session has been sent everything.
        self._sent = {"desktop": 0, "mobile": 0}
        self.members: dict[str, Member] = {}
        self.absent_since: dict[str, float] = {"desktop": now, "mobile": now}
        self.ever_active = ever_active
        # By role, who has been seen in the seat in this life of the channel.
        self.holders: dict[str, SeatOwner] = {}
        self.closed = False
        self._intrusions = TokenBucket(1, 5, now)
        # By role, what it sends; made with its first chunk.
        self._streams: dict[str, AudioForwarder] = {}
        self._settings = SettingsSynchronizer(name, self.members, limits, later, kept)
        # The revision that is safe outside; whoever keeps the settings sets it.
        self.kept_rev = self._settings.rev
        self._limits = limits
        self._counters = counters

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

    def settings_now(self) -> SettingsSnapshot:
        """The settings as they are to be kept."""
        return self._settings.now()

    def overdue(self, now: float, grace: float) -> bool:
        """Whether a member has been missing for longer than the grace (see Hub.overdue)."""
        if not self.absent_since or not (self.ever_active or not self.members):
            return False
        return now - max(self.absent_since.values()) > grace

    def knows(self, role: str, holder: SeatOwner, now: float) -> bool:
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
        was_active = self.active
        fresh = self._seat(member)
        since = self._welcome(
            member, last_seq if epoch == self.epoch else None, fresh=fresh, degraded=degraded
        )
        if fresh:
            self._catch_up(member, since, now)
            if other := self.members.get(OTHER[member.device_type]):
                other.deliver(self._say.came(member))
        activated = self.active and not was_active
        if activated:
            self.ever_active = True
            self._broadcast(self._say.together(self.devices))
        return Joined(fresh, activated)

    def _seat(self, member: Member) -> bool:
        """Whether it was not there before."""
        role = member.device_type
        before = self.members.get(role)
        self.members[role] = member
        self.holders[role] = SeatOwner(member.subject, member.session_id)
        self.absent_since.pop(role, None)
        if before is not None and before is not member:
            before.evict(SessionReplaced(), CloseCode.REPLACED)
            self._note_sent(before)
        return before is not member

    def _welcome(self, member: Member, last_seq: int | None, *, fresh: bool, degraded: bool) -> int:
        """Tell the member what there is. The number after which it is to be sent the messages. `last_seq`: in this epoch."""
        role = member.device_type
        known = last_seq if last_seq is not None and last_seq <= self.seq else None
        # What was sent on this very connection is on its way, and not sent once more.
        served = (self._sent[role] if known is None else known) if fresh else self.seq
        since = self.history.kept_after(served, role)
        welcome = self._say.welcome(
            devices=self.devices,
            settings=self._settings.raw(),
            rev=self._settings.rev,
            epoch=self.epoch,
            seq=self.seq,
            last_seq=since,
            recovered=known is not None and known == self.history.kept_after(known, role),
            degraded=degraded,
        )
        member.deliver(welcome)
        return since

    def _catch_up(self, member: Member, since: int, now: float) -> None:
        """Send the messages after that number, the settings, and before the next chunk the beginning of the sound."""
        role = member.device_type
        for seq, message in self.history.after(since, role):
            member.send_queue.send(message, Lane.MESSAGE, seq)
        if heard := self._streams.get(OTHER[role]):
            heard.newcomer = True
        self._settings.forget(role)
        self._settings.send(member, now)

    def _broadcast(self, message: bytes) -> None:
        for member in list(self.members.values()):
            member.deliver(message)

    def leave(self, member: Member, reason: str, now: float, *, force: bool = False) -> bool:
        """Take the member out and tell the other. False if its seat was not (or no longer) its own."""
        role = member.device_type
        if self.members.get(role) is not member:
            return False
        del self.members[role]
        self.absent_since[role] = now
        self._note_sent(member)
        if other := self.members.get(OTHER[role]):
            other.deliver(self._say.left(member.session_id, role, reason, for_good=force))
        return True

    def _note_sent(self, member: Member) -> None:
        """It is gone: what it has not been sent waits for its return."""
        unsent = member.send_queue.unsent
        self._sent[member.device_type] = self.seq if unsent is None else unsent - 1

    def relay(
        self, sender: Member, payload: Raw | bytes, id_: str | int | None, again: bool = False
    ) -> SendQueue | None:
        """Number the message, keep it, and pass it to the other member if that is there.

        One that is sent `again` under an id that is known is only acknowledged again. Like `audio` and `sync`,
        returns the other's outbox if that is congested. Raises ValidationFailed if the payload is no object, or
        nested too deep.
        """
        to = OTHER[sender.device_type]
        if again and id_ is not None and (known := self.history.number_of(id_, to)) is not None:
            sender.deliver(encode(Ack(id=id_, seq=known)))
            return None
        seq = self.seq + 1
        message = self._envelope.wrap(payload, seq, id_)
        self.seq = seq
        self.history.add(seq, to, message, id_)
        self._counters.channel_messages += 1
        peer = self.members.get(to)
        congested = peer is not None and peer.send_queue.send(message, _MESSAGE, seq)
        if id_ is not None:
            sender.deliver(encode(Ack(id=id_, seq=seq)))
        return peer.send_queue if peer is not None and congested else None

    def audio(self, sender: Member, request: requests.AudioChunk | BinaryAudio) -> SendQueue | None:
        """Pass the chunk to the other member, if it is there: audio is live."""
        role = sender.device_type
        peer = self.members.get(OTHER[role])
        if role not in self._streams:
            self._streams[role] = AudioForwarder(self.name)
        congested = self._streams[role].chunk(request, peer)
        if peer is None:
            return None
        self._counters.audio_chunks += 1
        return peer.send_queue if congested else None

    def audio_gap(self, receiver: Member, first: int, last: int) -> None:
        """Chunks from `first` to `last` did not fit into what waits for the receiver: tell it."""
        self._counters.audio_dropped += last - first + 1
        # A decoder does not get over a hole: it gets the stream's beginning once more.
        if heard := self._streams.get(OTHER[receiver.device_type]):
            heard.newcomer = True
        receiver.deliver(self._say.audio_gap(first, last))

    def sync(self, sender: Member, request: requests.SettingsSync, now: float) -> SendQueue | None:
        """Merge the settings; pass the whole document on if anything has changed.

        Raises ValidationFailed or PayloadTooLarge if the merged document would be over its bounds.
        """
        merge = self._settings.merge(sender.device_type, request, now)
        peer = self.members.get(OTHER[sender.device_type])
        congested = False
        if merge is None:
            self._counters.echoes += 1
        else:
            self.seq += 1
            self._counters.settings_syncs += 1
            congested = peer is not None and self._settings.pass_on(merge, peer, self.seq, now)
        self._settings.schedule(now)
        return peer.send_queue if peer is not None and congested else None

    def settle(self, now: float) -> None:
        """Settle at once what doubts there are about the settings."""
        self._settings.settle(now)

    def refuse_intruder(self, device_type: str, now: float) -> None:
        """Somebody else has tried to join: tell the members, but not without end."""
        if self._intrusions.take(now):
            return
        self._broadcast(self._say.intruder(device_type, len(self.members)))

    def peer_slow(self, member: Member) -> None:
        """The member does not read fast enough and is being closed: tell the other."""
        if other := self.members.get(OTHER[member.device_type]):
            other.deliver(self._say.slow(member.device_type))

    def end(self, reason: str, gone: Mapping[str, str], keep: str | None = None) -> None:
        """The channel is closed for good. `gone`: role → session id of each that is not to come back.

        The members are told who left for good, then that the channel is closed; their sockets close
        4410, but for that of the role to `keep`, which has a newer channel to join.
        """
        self._close()
        for role, session_id in gone.items():
            if other := self.members.get(OTHER[role]):
                other.deliver(self._say.left(session_id, role, reason, for_good=True))
        self._broadcast(self._say.closed(reason))
        if keep in self.members:
            self.members.pop(keep).evict(None, None)
        self._evict_all(None, CloseCode.CHANNEL_CLOSED)

    def lapse(self, error: PairingServerError) -> None:
        """The code was never used: the waiting desktop is told, and may ask for another on the same socket."""
        self._close()
        self._evict_all(error, None)

    def _close(self) -> None:
        self.closed = True
        self._settings.stop()

    def _evict_all(self, error: PairingServerError | None, code: CloseCode | None) -> None:
        members = list(self.members.values())
        self.members.clear()
        for member in members:
            member.evict(error, code)

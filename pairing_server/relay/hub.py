"""The connections and channels of this process, and who is told what when a pairing changes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from math import ceil
from uuid import UUID

from pairing_server.errors import InvalidChannel
from pairing_server.metrics import histogram
from pairing_server.relay import messages
from pairing_server.relay.channel import Channel
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection import Connection
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.counters import Counters
from pairing_server.relay.members import SeatOwner
from pairing_server.relay.settings.document import SettingsSnapshot
from pairing_server.relay.settings.sync import Later

# When all are closed: so many at a time, with so many seconds between (500 a second); more at a time if it would
# take longer than the last.
CLOSED_AT_ONCE = 25
SPREAD_STEP = 0.05
LONGEST_SPREAD = 10.0
# How long an ended pairing is remembered, in seconds, which is much longer than a join may take; and how many are.
ENDED_KEPT = 60.0
MOST_ENDED = 10_000

# Seconds.
WAIT_BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Called with an audit event's name, its outcome, the session it is about, and its attributes.
Report = Callable[[str, str, Connection | None, Mapping[str, object]], None]


class Hub:
    def __init__(
        self, limits: ConnectionLimits, now: Callable[[], float], later: Later, report: Report
    ) -> None:
        """`now`: the loop's monotonic seconds; `later` runs a call after some of them."""
        self.limits = limits
        self.counters = Counters()
        # How long messages have waited for slow receivers.
        self.waited = histogram(
            "pairing_queue_wait_seconds",
            "How long messages waited until a slow receiver took more, one of each portion that left a queue; those"
            " that went straight through did not wait, and are not in it.",
            WAIT_BOUNDS,
        )
        self.channels: dict[UUID, Channel] = {}
        self._by_name: dict[str, Channel] = {}
        self.connections: dict[str, Connection] = {}
        self.report = report
        self.now = now
        self._later = later
        # When pairings ended, a moment ago: a join that was admitted just before must not revive them.
        self._ended: OrderedDict[UUID, float] = OrderedDict()
        # The channel in which each device was last seen.
        self._places: dict[SeatOwner, Channel] = {}
        self._by_device: dict[tuple[str, str], Connection] = {}
        self._when_empty: Callable[[], None] | None = None
        self._of_user: Counter[str] = Counter()
        self._of_address: Counter[str] = Counter()

    def room_for(self, subject: str, address_key: str) -> str | None:
        """None if another connection of this user and address is allowed, else which limit is reached."""
        if self._of_user[subject] >= self.limits.connections_per_user:
            return "connections_per_user"
        if self._of_address[address_key] >= self.limits.connections_per_address:
            return "connections_per_address"
        return None

    def opened(self, connection: Connection) -> None:
        self.connections[connection.connection_id] = connection
        self._of_user[connection.subject] += 1
        self._of_address[connection.address_key] += 1
        self.counters.connections_opened += 1

    def closed(self, connection: Connection, reason: str, now: float) -> Channel | None:
        """The socket is gone: leave its channel. That channel, if it was still the session's."""
        if self.connections.pop(connection.connection_id, None) is None:
            return None
        for counter, key in ((self._of_user, connection.subject), (self._of_address, connection.address_key)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self._forget_device(connection)
        channel = connection.gone(reason, now)
        self.counters.gone(connection.send_queue)
        if not self.connections and self._when_empty is not None:
            self._when_empty()
        return channel

    def close_all(self, code: CloseCode, reason: str, when_done: Callable[[], None]) -> None:
        """Close every connection; `when_done` is called once all are gone.

        Spread over time, so that they do not all come back at once; the members of a channel at the same moment,
        so that neither talks to nobody meanwhile. Until its turn comes a channel goes on as ever.
        """
        self._when_empty = when_done
        if not self.connections:
            when_done()
            return
        together: dict[object, list[Connection]] = {}
        for connection in self.connections.values():
            together.setdefault(connection.channel or connection, []).append(connection)
        steps = LONGEST_SPREAD / SPREAD_STEP
        self._close_some(
            list(together.values()), max(CLOSED_AT_ONCE, ceil(len(self.connections) / steps)), code, reason
        )

    def _close_some(self, groups: list[list[Connection]], count: int, code: CloseCode, reason: str) -> None:
        closed = 0
        while groups and closed < count:
            for connection in groups.pop():
                connection.close(code, reason)
                closed += 1
        if groups:
            self._later(SPREAD_STEP, lambda: self._close_some(groups, count, code, reason))

    def identified(self, connection: Connection) -> None:
        """The session now has a session id, by which it can be found."""
        self._by_device[(connection.subject, connection.session_id)] = connection

    def _forget_device(self, connection: Connection) -> None:
        if connection.device is not None:
            key = (connection.subject, connection.device.session_id)
            if self._by_device.get(key) is connection:
                del self._by_device[key]

    def channel(
        self,
        pairing_id: UUID,
        name: str,
        now: float,
        *,
        ever_active: bool = False,
        kept: SettingsSnapshot | None = None,
    ) -> Channel:
        """The live channel of that pairing, made if there is none.

        `ever_active`: both devices have met before, perhaps before a restart of this process; `kept`: the
        settings from then. Raises InvalidChannel if the pairing has just ended.
        """
        if pairing_id in self._ended:
            raise InvalidChannel(channel=name)
        channel = self.channels.get(pairing_id)
        if channel is None:
            channel = Channel(
                pairing_id,
                name,
                self.limits,
                self.counters,
                self._later,
                now,
                ever_active=ever_active,
                kept=kept,
            )
            self.channels[pairing_id] = channel
            self._by_name[name] = channel
        return channel

    def named(self, name: str) -> Channel | None:
        """The live channel of that name, the newest if a name has been given out anew."""
        return self._by_name.get(name)

    def seated(self, subject: str, session_id: str, channel: Channel) -> None:
        """The device has taken its seat in the channel."""
        self._places[SeatOwner(subject, session_id)] = channel

    def remembered(self, subject: str, session_id: str, role: str, now: float) -> Channel | None:
        """The live channel in which that device was seen last, if that is no longer ago than the grace."""
        holder = SeatOwner(subject, session_id)
        channel = self._places.get(holder)
        return channel if channel is not None and channel.knows(role, holder, now) else None

    def forget(self, pairing_id: UUID) -> Channel | None:
        """The channel is no longer one of this process's."""
        channel = self.channels.pop(pairing_id, None)
        if channel is None:
            return None
        if self._by_name.get(channel.name) is channel:
            del self._by_name[channel.name]
        for holder in channel.holders.values():
            if self._places.get(holder) is channel:
                del self._places[holder]
        return channel

    def present(self, pairing_id: UUID, role: str) -> bool:
        """Whether the device in that seat is connected here."""
        channel = self.channels.get(pairing_id)
        return channel is not None and role in channel.members

    def device(self, subject: str | None, session_id: str) -> Connection | None:
        """The connection of that device, if it is here and has said which it is."""
        return self._by_device.get((subject, session_id)) if subject else None

    def claimed(self, subject: str | None, session_id: str, name: str) -> None:
        """The code was redeemed: tell the desktop that shows it, if it is connected here."""
        connection = self.device(subject, session_id)
        if connection is not None:
            connection.deliver(messages.encode(messages.PairingClaimed(channel=name, channelId=name)))

    def end(self, pairing_id: UUID, reason: str, gone: Mapping[str, str], keep: str | None = None) -> None:
        """The pairing is over: close its channel, if it is here (see Channel.end)."""
        channel = self._over(pairing_id)
        if channel is not None:
            channel.end(reason, gone, keep)

    def lapse(self, pairing_id: UUID, reason: str) -> None:
        """The code ended unused ("expired" or "superseded"): tell whoever waits in its channel."""
        channel = self._over(pairing_id)
        if channel is not None:
            channel.lapse(InvalidChannel(channel=channel.name, reason=reason))

    def _over(self, pairing_id: UUID) -> Channel | None:
        self._ended[pairing_id] = self.now()
        self._ended.move_to_end(pairing_id)
        if len(self._ended) > MOST_ENDED:
            self._ended.popitem(last=False)
        return self.forget(pairing_id)

    def connected_channels(self) -> tuple[list[UUID], list[UUID]]:
        """The channels with a member here: those with both, and those with one that have had both."""
        active = [c.pairing_id for c in self.channels.values() if c.active]
        waiting = [c.pairing_id for c in self.channels.values() if len(c.members) == 1 and c.ever_active]
        return active, waiting

    def unkept(self) -> list[Channel]:
        """The channels whose settings have changed since they were last kept."""
        return [c for c in self.channels.values() if c.settings_rev != c.kept_rev]

    def overdue(self, now: float) -> list[Channel]:
        """Channels that a member has been missing from for longer than the grace.

        With one member still there, its peer's absence counts; with none, that of the last to go.
        """
        grace = self.limits.reconnect_grace
        return [channel for channel in self.channels.values() if channel.overdue(now, grace)]

    def tick(self, now: float) -> None:
        """Once a second: what time alone brings about for the connections, and for what has ended."""
        for connection in list(self.connections.values()):
            connection.tick(now)
        while self._ended and next(iter(self._ended.values())) + ENDED_KEPT < now:
            self._ended.popitem(last=False)

"""The connections and channels of this process, and what members are sent when a pairing changes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping
from math import ceil
from uuid import UUID

from pairing_server.errors import InvalidChannel
from pairing_server.relay import messages, requests
from pairing_server.relay.channel import Channel
from pairing_server.relay.connection import Connection
from pairing_server.relay.context import RelayContext
from pairing_server.relay.identity import Device
from pairing_server.relay.members import Joined, SeatOwner
from pairing_server.relay.settings.document import SettingsSnapshot

# When all are closed: so many at a time, with so many seconds between (500 a second); more at a time if it would
# take longer than the last.
CLOSED_AT_ONCE = 25
SPREAD_STEP = 0.05
LONGEST_SPREAD = 10.0
# How long an ended or a redeemed pairing is remembered, which is much longer than a join or a poll may take; and how
# many are.
REMEMBERED_SECONDS = 60.0
MOST_REMEMBERED = 10_000


class Hub:
    """`connections`: by connection id. `channels`: by pairing id."""

    def __init__(self, context: RelayContext) -> None:
        self.context = context
        self.channels: dict[UUID, Channel] = {}
        self.connections: dict[str, Connection] = {}
        self._by_name: dict[str, Channel] = {}
        # When pairings ended, a moment ago: a join that was admitted just before must not revive them.
        self._ended: OrderedDict[UUID, float] = OrderedDict()
        # The pairings whose desktop got `pairing_claimed` a moment ago: it is sent once, however often it is learnt.
        self._claimed: OrderedDict[UUID, float] = OrderedDict()
        # The channel in which each device was last seen.
        self._last_channel: dict[SeatOwner, Channel] = {}
        self._by_device: dict[tuple[str, str], Connection] = {}
        self._when_empty: Callable[[], None] | None = None
        self._of_user: Counter[str] = Counter()
        self._of_address: Counter[str] = Counter()

    # Connections

    def reached_limit(self, subject: str, address_key: str) -> str | None:
        """Which limit keeps this user and address from opening another connection, if any."""
        limits = self.context.limits
        if self._of_user[subject] >= limits.connections_per_user:
            return "connections_per_user"
        if self._of_address[address_key] >= limits.connections_per_address:
            return "connections_per_address"
        return None

    def add(self, connection: Connection) -> None:
        """The connection is open."""
        self.connections[connection.connection_id] = connection
        self._of_user[connection.subject] += 1
        self._of_address[connection.peer.address_key] += 1
        self.context.counters.connections_opened += 1

    def remove(self, connection: Connection, reason: str, now: float) -> Channel | None:
        """The socket is closed: leave its channel. That channel, if it was still the connection's."""
        if self.connections.pop(connection.connection_id, None) is None:
            return None
        counted = ((self._of_user, connection.subject), (self._of_address, connection.peer.address_key))
        for counter, key in counted:
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        if connection.device is not None:
            device = (connection.subject, connection.device.session_id)
            if self._by_device.get(device) is connection:
                del self._by_device[device]
        channel = connection.disconnect(reason, now)
        if not self.connections and self._when_empty is not None:
            self._when_empty()
        return channel

    def identify(self, connection: Connection, device: Device) -> None:
        """The connection is this device's, and can be found by it."""
        connection.identify(device)
        self._by_device[(connection.subject, connection.session_id)] = connection

    def connection_of(self, subject: str | None, session_id: str) -> Connection | None:
        """The connection of that device, if it is here and identified."""
        return self._by_device.get((subject, session_id)) if subject else None

    def close_connections(self, when_done: Callable[[], None]) -> None:
        """Close every connection, since the server stops; `when_done` is called once all are gone.

        Spread over time, so that they do not all come back at once; the members of a channel at the same moment, so
        that neither sends to an absent peer meanwhile. Until its turn comes, a channel works as before.
        """
        self._when_empty = when_done
        if not self.connections:
            when_done()
            return
        groups: dict[object, list[Connection]] = {}
        for connection in self.connections.values():
            groups.setdefault(connection.channel or connection, []).append(connection)
        steps = LONGEST_SPREAD / SPREAD_STEP
        at_once = max(CLOSED_AT_ONCE, ceil(len(self.connections) / steps))
        self._close_some(list(groups.values()), at_once)

    def _close_some(self, groups: list[list[Connection]], count: int) -> None:
        closed = 0
        while groups and closed < count:
            for connection in groups.pop():
                connection.close_for_restart()
                closed += 1
        if groups:
            self.context.call_later(SPREAD_STEP, lambda: self._close_some(groups, count))

    # Channels

    def open_channel(
        self,
        pairing_id: UUID,
        name: str,
        now: float,
        *,
        ever_active: bool = False,
        settings: SettingsSnapshot | None = None,
    ) -> Channel:
        """The live channel of that pairing, made if there is none.

        `ever_active`: both devices have met before, perhaps before a restart of this process; `settings`: those
        saved then. Raises InvalidChannel if the pairing has just ended.
        """
        if pairing_id in self._ended:
            raise InvalidChannel(channel=name)
        channel = self.channels.get(pairing_id)
        if channel is None:
            channel = Channel(pairing_id, name, self.context, now, settings)
            channel.ever_active = ever_active
            self.channels[pairing_id] = channel
            self._by_name[name] = channel
        return channel

    def join(
        self,
        connection: Connection,
        channel: Channel,
        request: requests.JoinChannel,
        now: float,
        *,
        degraded: bool = False,
    ) -> Joined:
        """The connection's device takes its seat in the channel (see Channel.join)."""
        joined = connection.join(channel, request, now, degraded=degraded)
        self._last_channel[SeatOwner(connection.subject, connection.session_id)] = channel
        return joined

    def channel_named(self, name: str) -> Channel | None:
        """The live channel of that name, the newest if a name has been given out anew."""
        return self._by_name.get(name)

    def remembered_channel(self, connection: Connection, session_id: str, now: float) -> Channel | None:
        """The live channel in which that device was seen last, if that is no longer ago than the grace."""
        owner = SeatOwner(connection.subject, session_id)
        channel = self._last_channel.get(owner)
        known = channel is not None and channel.remembers(connection.device_type, owner, now)
        return channel if known else None

    def forget_channel(self, pairing_id: UUID) -> Channel | None:
        """The channel is no longer one of this process's."""
        channel = self.channels.pop(pairing_id, None)
        if channel is None:
            return None
        if self._by_name.get(channel.name) is channel:
            del self._by_name[channel.name]
        for owner in channel.seat_owners.values():
            if self._last_channel.get(owner) is channel:
                del self._last_channel[owner]
        return channel

    def is_present(self, pairing_id: UUID, role: str) -> bool:
        """Whether the device in that seat is connected here."""
        channel = self.channels.get(pairing_id)
        return channel is not None and role in channel.members

    def announce_claim(self, pairing_id: UUID, subject: str | None, session_id: str, name: str) -> None:
        """The code was redeemed: notify the desktop that shows it, once, if it is connected here."""
        connection = self.connection_of(subject, session_id)
        if connection is not None and pairing_id not in self._claimed:
            _remember(self._claimed, pairing_id, self.context.now())
            connection.send(messages.encode(messages.PairingClaimed(channel=name)))

    def announce_intruder(self, pairing_id: UUID, device_type: str) -> None:
        """Another device has tried to join that channel: notify its members, if it is here."""
        if (channel := self.channels.get(pairing_id)) is not None:
            channel.announce_intruder(device_type, self.context.now())

    def end_channel(
        self, pairing_id: UUID, reason: str, gone: Mapping[str, str], keep: str | None = None
    ) -> None:
        """The pairing is over: close its channel, if it is here (see Channel.end)."""
        channel = self._note_ended(pairing_id)
        if channel is not None:
            channel.end(reason, gone, keep)

    def move_channel(self, pairing_id: UUID, joined: Collection[str]) -> None:
        """Another server has the pairing's channel now, with the devices of these roles (see Channel.move)."""
        channel = self.forget_channel(pairing_id)
        if channel is not None:
            channel.move(joined)

    def cancel_channel(self, pairing_id: UUID, reason: str) -> None:
        """The code ended unused ("expired", "superseded", "rejected"): notify the device that waits in its channel."""
        channel = self._note_ended(pairing_id)
        if channel is not None:
            channel.cancel(InvalidChannel(channel=channel.name, reason=reason))

    def _note_ended(self, pairing_id: UUID) -> Channel | None:
        _remember(self._ended, pairing_id, self.context.now())
        return self.forget_channel(pairing_id)

    # Periodic work

    def connected_channels(self) -> list[UUID]:
        """The channels with a member here."""
        return [channel.pairing_id for channel in self.channels.values() if channel.members]

    def unsaved_channels(self) -> list[Channel]:
        """The channels whose settings have changed since they were last saved."""
        return [c for c in self.channels.values() if c.settings.rev != c.saved_rev]

    def overdue_channels(self, now: float) -> list[Channel]:
        """Channels that a member has been missing from for longer than the grace.

        With one member still there, its peer's absence counts; with none, that of the last to go.
        """
        grace = self.context.limits.reconnect_grace
        return [channel for channel in self.channels.values() if channel.is_overdue(now, grace)]

    def check_timeouts(self, now: float) -> None:
        """Once a second: the timeouts of connections, and of what is remembered of ended pairings."""
        for connection in list(self.connections.values()):
            connection.check_timeouts(now)
        for pairings in (self._ended, self._claimed):
            while pairings and next(iter(pairings.values())) + REMEMBERED_SECONDS < now:
                pairings.popitem(last=False)


def _remember(pairings: OrderedDict[UUID, float], pairing_id: UUID, now: float) -> None:
    pairings[pairing_id] = now
    pairings.move_to_end(pairing_id)
    if len(pairings) > MOST_REMEMBERED:
        pairings.popitem(last=False)

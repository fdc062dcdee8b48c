"""Changes of pairings in the database reach the connections of this process, whichever process or person made them.

The caller of a statement sends the messages about it at once. But the statement may have been another process's, or
the answer to its COMMIT was lost: so each process polls what has changed, as it polls revocations.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from pairing_server.db.database import Database
from pairing_server.relay.hub import Hub
from pairing_server.store import pairing_changes as store
from pairing_server.store.pairings import Pairing

# Pairings a statement.
_BATCH = 1000
# How many names of codes are remembered.
_MOST_NAMES = 1000


def announce_end(hub: Hub, ended: Pairing, gone: Mapping[str, str] | None = None) -> None:
    """Close the channel of a pairing that has ended, if it is here, with the messages that its end asks for.

    `gone`: role → session id of each device that does not come back; both, if it is not known. Repeating it does nothing.
    """
    reason = ended.end_reason or ended.state
    unused = ended.redeemed_at is None and reason == "superseded"
    if unused or reason in ("expired", "rejected"):
        hub.cancel_channel(ended.id, reason)
    elif reason == "superseded":
        hub.end_channel(ended.id, reason, {"desktop": ended.desktop.session_id}, keep="desktop")
    else:
        hub.end_channel(ended.id, reason, both_gone(ended) if gone is None else gone)


def both_gone(pairing: Pairing) -> dict[str, str]:
    """The session ids of both members by role: neither comes back."""
    gone = {"desktop": pairing.desktop.session_id}
    if pairing.mobile is not None:
        gone["mobile"] = pairing.mobile.session_id
    return gone


@dataclass(slots=True)
class PairingChanges:
    """`snapshot`: what this process has seen of the database."""

    database: Database
    hub: Hub
    node: UUID
    snapshot: str | None = None
    # When the database was last back from an outage, in monotonic seconds.
    _back_at: float = field(default=0.0, init=False)
    # By the code's MAC, the channel names of codes that were made here, or may have been redeemed here.
    _names: OrderedDict[bytes, str] = field(default_factory=OrderedDict, init=False)

    def expect_claim(self, macs: Sequence[bytes], name: str) -> None:
        """If the poll finds that this code was redeemed, its desktop gets `pairing_claimed`, joined or not."""
        self._names.update(dict.fromkeys(macs, name))
        while len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)

    async def poll(self) -> int:
        """Learn what has changed on any server, and send the messages about it to the devices that are here. How many
        pairings have changed.

        After an outage, and if the database has lost transactions, all channels of this process are compared.
        """
        back_at = self.database.breaker.back_at
        changes = await store.since(self.database.once, self.snapshot)
        ids = changes.pairing_ids
        if self.snapshot is None or changes.backwards or back_at != self._back_at:
            ids = list({*ids, *self.hub.channels})
        await self.compare(ids)
        # Only now: what failed on the way is read again.
        self.snapshot, self._back_at = changes.snapshot, back_at
        return len(ids)

    async def compare(self, ids: Sequence[UUID]) -> None:
        """Send the devices that are here the messages that the state of these pairings in the database asks for."""
        for start in range(0, len(ids), _BATCH):
            await self._announce(ids[start : start + _BATCH])

    async def _announce(self, ids: Sequence[UUID]) -> None:
        async with self.database.transaction() as conn:
            found = await store.of(conn, ids)
        # A desktop gets `pairing_claimed` for its new code before its old channel closes.
        for current in found.values():
            if current.pairing.state == "redeemed":
                self._announce_claim(current.pairing, current.mac)
        for pairing_id in ids:
            now = found.get(pairing_id)
            if now is None:
                self.hub.end_channel(pairing_id, "unpaired", self._seats(pairing_id))
            elif not now.pairing.live:
                announce_end(self.hub, now.pairing)
            elif now.node not in (None, self.node):
                self.hub.move_channel(pairing_id, now.joined)

    def _announce_claim(self, pairing: Pairing, mac: bytes | None) -> None:
        channel = self.hub.channels.get(pairing.id)
        name = channel.name if channel else self._names.pop(mac or b"", None)
        if name is not None:
            self.hub.announce_claim(pairing.id, pairing.desktop.user, pairing.desktop.session_id, name)

    def _seats(self, pairing_id: UUID) -> dict[str, str]:
        """The devices last seen in the channel, by role."""
        channel = self.hub.channels.get(pairing_id)
        return {} if channel is None else {role: o.session_id for role, o in channel.seat_owners.items()}

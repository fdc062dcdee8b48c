"""What the relay of this process has done since its start; metrics read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pairing_server.relay.send_queue import Outbox


@dataclass(slots=True)
class Counts:
    """Plain numbers: the relay path adds to them."""

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

"""What the relay of this process has done since its start; metrics read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pairing_server.relay.send_queue import SendQueue


@dataclass(slots=True)
class Counters:
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

    def gone(self, send_queue: SendQueue) -> None:
        """A connection is closed: what its outbox has counted is kept here."""
        self.settings_replaced += send_queue.replaced
        self.messages_given_up += send_queue.given_up

    def dropped(self, send_queues: Sequence[SendQueue]) -> dict[str, int]:
        """What was not sent to slow receivers, by lane; `outboxes` are those of the open connections."""
        return {
            "audio": self.audio_dropped,
            "settings": self.settings_replaced + sum(send_queue.replaced for send_queue in send_queues),
            "message": self.messages_given_up + sum(send_queue.given_up for send_queue in send_queues),
        }

    @property
    def relayed(self) -> dict[str, int]:
        """What has reached a peer's outbox or the history, by message type."""
        return {
            "channel_message": self.channel_messages,
            "audio_chunk": self.audio_chunks,
            "settings_sync": self.settings_syncs,
        }

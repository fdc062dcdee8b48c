"""What the relay of this process has done since its start; metrics read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Plain numbers: the relay adds to them for each message."""

    channel_messages: int = 0
    audio_chunks: int = 0
    settings_syncs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    echoes: int = 0
    audio_dropped: int = 0
    settings_replaced: int = 0
    messages_given_up: int = 0
    connections_opened: int = 0
    joins_elsewhere: int = 0

    @property
    def dropped(self) -> dict[str, int]:
        """What was not sent to slow receivers, by lane."""
        return {
            "audio": self.audio_dropped,
            "settings": self.settings_replaced,
            "message": self.messages_given_up,
        }

    @property
    def relayed(self) -> dict[str, int]:
        """What has reached a peer's send queue or the history, by message type."""
        return {
            "channel_message": self.channel_messages,
            "audio_chunk": self.audio_chunks,
            "settings_sync": self.settings_syncs,
        }

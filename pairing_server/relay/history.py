"""The last messages of a channel, for a member that reconnects."""

from __future__ import annotations

from collections import deque

from pairing_server.relay.connection_limits import ConnectionLimits


class History:
    """Bounded in count and bytes; the oldest messages are dropped first.

    `to`: the role that a message is for. `id_`: its sender's id for it.
    """

    __slots__ = ("_count", "_forgotten", "_messages", "_room", "_size")

    def __init__(self, limits: ConnectionLimits) -> None:
        self._count = limits.history_count
        self._room = limits.history_size
        self._messages: deque[tuple[int, str, bytes, str | int | None]] = deque()
        self._size = 0
        # By role, the newest seq that was dropped.
        self._forgotten = {"desktop": 0, "mobile": 0}

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._size

    def add(self, seq: int, to: str, message: bytes, id_: str | int | None = None) -> None:
        """Keep the message; `seq` is larger than any before."""
        kept = self._messages
        size = self._size + len(message)
        if len(kept) == self._count:
            # Nearly always the only one that has to be dropped.
            gone, role, old, _ = kept.popleft()
            self._forgotten[role] = gone
            size -= len(old)
        kept.append((seq, to, message, id_))
        self._size = size
        if size > self._room:
            self._forget()

    def _forget(self) -> None:
        while self._size > self._room:
            seq, to, message, _ = self._messages.popleft()
            self._forgotten[to] = seq
            self._size -= len(message)

    def after(self, seq: int, to: str) -> list[tuple[int, bytes]]:
        """The messages to that role after `seq`, as far as they are kept, oldest first, each with its seq."""
        found: list[tuple[int, bytes]] = []
        for number, role, message, _ in reversed(self._messages):
            if number <= seq:
                break
            if role == to:
                found.append((number, message))
        found.reverse()
        return found

    def number_of(self, id_: str | int, to: str) -> int | None:
        """The seq of the newest message kept for that role with that id of its sender."""
        for number, role, _, name in reversed(self._messages):
            if name == id_ and role == to:
                return number
        return None

    def kept_after(self, seq: int, to: str) -> int:
        """The seq after which no message to that role was dropped; `seq` itself if none was."""
        return max(seq, self._forgotten[to])

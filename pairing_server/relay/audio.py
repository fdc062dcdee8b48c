"""What a decoder needs before it can start in the middle of a stream. No I/O.

A recorder says once, at the beginning, which tracks there are; later chunks make no sense without. Known are
WebM (RFC 9559: EBML header, segment and tracks, up to the first cluster) and Ogg (RFC 3533: the pages without
sound of their own). Other formats are left alone.
"""

from __future__ import annotations

EBML, CLUSTER, TIMESTAMP = b"\x1a\x45\xdf\xa3", b"\x1f\x43\xb6\x75", 0xE7
OGG = b"OggS"
# An element of unknown size goes on until the next of its level.
_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7
# Header and size of a cluster, then its time stamp: what must be seen of a cluster to say when it is.
_CLUSTER_START = 4 + 8 + 1 + 8 + 8
_OGG_HEADER = 27
LARGEST = 64 * 1024


class StreamStart:
    """Fed with all chunks of one sender, says what a receiver that comes in between must get first."""

    __slots__ = ("_begun", "_cluster", "_collecting", "_start", "_tail")

    def __init__(self) -> None:
        # What was heard of a beginning that is not complete, and of which format.
        self._begun = b""
        self._collecting: bytes | None = None
        self._start: bytes | None = None
        # The head of the cluster that the next chunk continues, WebM only.
        self._cluster = b""
        self._tail = b""

    @property
    def watching(self) -> bool:
        """Whether the chunks must be fed: a known stream has begun."""
        return self._collecting is not None or self._start is not None

    def before_next(self) -> bytes | None:
        """What goes before the next chunk; None if nothing is known, or the beginning itself is under way."""
        if self._start is None:
            return None
        return self._start + self._cluster

    def feed(self, chunk: bytes) -> None:
        """The next chunk of the stream, or the first of a new one."""
        if begins(chunk):
            self._begun, self._collecting = b"", chunk[:4]
            self._start, self._cluster, self._tail = None, b"", b""
        if self._collecting is not None:
            self._collect(chunk)
        if self._start is not None and self._start.startswith(EBML):
            self._follow(chunk)

    def _collect(self, chunk: bytes) -> None:
        self._begun += chunk
        end = self._begun.find(CLUSTER) if self._collecting == EBML else _end_of_ogg_headers(self._begun)
        if 0 <= end <= LARGEST:
            self._start, self._collecting, self._begun = self._begun[:end], None, b""
        elif end > LARGEST or len(self._begun) > LARGEST:
            self._collecting, self._begun = None, b""

    def _follow(self, chunk: bytes) -> None:
        seen = self._tail + chunk
        at = seen.rfind(CLUSTER)
        if at >= 0 and (head := _cluster_head(seen[at : at + _CLUSTER_START])):
            self._cluster = head
        self._tail = seen[-_CLUSTER_START:]


def begins(chunk: bytes) -> bool:
    """Whether a stream of a known format begins with that."""
    if chunk.startswith(EBML):
        return True
    # The flag of a page that begins a stream.
    return chunk.startswith(OGG) and len(chunk) > 5 and bool(chunk[5] & 2)


def _cluster_head(seen: bytes) -> bytes:
    """A cluster of unknown size with the same time stamp; empty if that cannot be seen."""
    if len(seen) < 5 or not seen[4]:
        return b""
    at = 4 + 9 - seen[4].bit_length()
    if at + 1 >= len(seen) or seen[at] != TIMESTAMP or not seen[at + 1] & 0x80:
        return b""
    end = at + 2 + (seen[at + 1] & 0x7F)
    return CLUSTER + _UNKNOWN_SIZE + seen[at:end] if end <= len(seen) else b""


def _end_of_ogg_headers(stream: bytes) -> int:
    """Where the first page with sound begins; -1 if it has not come yet."""
    at = 0
    while stream[at : at + 4] == OGG and len(stream) >= at + _OGG_HEADER:
        position = int.from_bytes(stream[at + 6 : at + 14], "little")
        segments = stream[at + 26]
        sizes = stream[at + _OGG_HEADER : at + _OGG_HEADER + segments]
        if position:
            return at
        at += _OGG_HEADER + segments + sum(sizes)
    return -1

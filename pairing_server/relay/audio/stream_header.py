"""The header that a decoder needs before it can start in the middle of a stream. No I/O.

A recorder writes once, at the beginning, which tracks there are; later chunks cannot be decoded without it. Supported
are WebM (RFC 9559: EBML header, segment and tracks, up to the first cluster) and Ogg (RFC 3533: the pages without
audio). Other formats pass unchanged.
"""

from __future__ import annotations

EBML, CLUSTER, TIMESTAMP = b"\x1a\x45\xdf\xa3", b"\x1f\x43\xb6\x75", b"\xe7"
OGG = b"OggS"
# An element of unknown size goes on until the next of its level.
_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7
_OGG_HEADER = 27
# Bytes by which the beginning of an Ogg stream is not known yet; one of WebM is, by four.
_TORN = 5
LARGEST = 64 * 1024
# A cluster's time is a number.
_TIME_SIZE = 8
# So many elements of a chunk are followed, which is half a minute of sound or more. A chunk made of empty elements
# would keep all other connections waiting.
MOST_ELEMENTS = 2000


class Clusters:
    """Follows the clusters of a WebM stream: where in one the next chunk goes on.

    Recorders cut anywhere, also in the middle of a block or of its header.
    """

    __slots__ = ("_head", "_open")

    def __init__(self) -> None:
        # The cluster's own header and time; empty while it is not known where one begins.
        self._head = b""
        # The part received of the element that is not complete.
        self._open = b""

    @property
    def before_next(self) -> bytes:
        return self._head + self._open if self._head else b""

    def feed(self, chunk: bytes) -> None:
        data, at, left = self._open + chunk, 0, MOST_ELEMENTS
        while at < len(data):
            if not left:
                self._head, at = b"", len(data)
                break
            left -= 1
            if not self._head and (at := data.find(CLUSTER, at)) < 0:
                at = max(0, len(data) - len(CLUSTER) + 1)
                break
            element = _element(data, at)
            if element is None:
                break
            id_, content, end = element
            if id_ == CLUSTER:
                self._head, at = CLUSTER + _UNKNOWN_SIZE, content
                continue
            if not 0 <= end - content <= (_TIME_SIZE if id_ == TIMESTAMP else LARGEST):
                self._head, at = b"", at + 1  # that was no element
                continue
            if end > len(data):
                break
            if id_ == TIMESTAMP:
                # Of several the last; a head that grew with each would have no end.
                self._head = CLUSTER + _UNKNOWN_SIZE + data[at:end]
            at = end
        self._open = data[at:]


def _element(data: bytes, at: int) -> tuple[bytes, int, int] | None:
    """An element's id, where its content begins and ends; None if its header is not complete.

    The end is before the content if it has no size, or what stands there is no element.
    """
    middle = at + _width(data[at])
    if middle >= len(data):
        return None
    width = _width(data[middle])
    content = middle + width
    if content > len(data):
        return None
    mask = (1 << 7 * width) - 1
    size = int.from_bytes(data[middle:content], "big") & mask
    known = size != mask and middle - at <= 4 and width <= 8
    return data[at:middle], content, content + size if known else -1


def _width(first: int) -> int:
    """Bytes of an EBML number that begins so (RFC 8794, section 4); 9 if none does."""
    return 9 - first.bit_length()


class StreamHeader:
    """The header of one sender's stream: fed with all chunks, it gives what a late receiver must get first."""

    __slots__ = ("_clusters", "_first_bytes", "_format", "_header", "_partial")

    def __init__(self) -> None:
        # What came last, if it may be the first bytes of a beginning.
        self._first_bytes = b""
        # The part received of a header that is not complete, and its format.
        self._partial = b""
        self._format: bytes | None = None
        self._header: bytes | None = None
        # WebM only.
        self._clusters: Clusters | None = None

    @property
    def watching(self) -> bool:
        """Whether the chunks must be fed: a stream of a known format has begun, or may have."""
        return self._format is not None or self._header is not None or bool(self._first_bytes)

    def before(self, chunk: bytes) -> bytes | None:
        """What goes before this chunk, which is to be fed then; None if nothing is known, or it is the beginning."""
        if begins(chunk):
            return None
        return self._first_bytes if begins(self._first_bytes + chunk) else self.before_next()

    def before_next(self) -> bytes | None:
        """What goes before the next chunk; None if nothing is known, or the beginning itself is under way."""
        if self._header is None or self._clusters is None:
            return self._header
        inside = self._clusters.before_next
        return self._header + inside if inside else None

    def feed(self, chunk: bytes) -> None:
        """The next chunk of the stream, or the first of a new one."""
        whole = self._first_bytes + chunk
        if not begins(chunk) and begins(whole):
            chunk = whole
        self._first_bytes = next((data for data in (whole, chunk) if may_begin(data)), b"")
        if begins(chunk):
            self._partial, self._format = b"", chunk[:4]
            self._header = self._clusters = None
        if self._format is not None:
            self._collect(chunk)
        elif self._clusters is not None:
            self._clusters.feed(chunk)

    def _collect(self, chunk: bytes) -> None:
        self._partial += chunk
        webm = self._format == EBML
        end = self._partial.find(CLUSTER) if webm else _end_of_ogg_headers(self._partial)
        if 0 <= end <= LARGEST:
            self._header, rest = self._partial[:end], self._partial[end:]
            self._format, self._partial = None, b""
            if webm:
                self._clusters = Clusters()
                self._clusters.feed(rest)
        elif end > LARGEST or len(self._partial) > LARGEST:
            self._format, self._partial = None, b""


def may_begin(chunk: bytes) -> bool:
    """Whether these may be the first bytes of a stream of a known format, and too few to tell.

    Chromium's recorder gives the first byte alone on a busy machine.
    """
    if not 0 < len(chunk) <= _TORN or chunk == EBML:
        return False
    return EBML.startswith(chunk) or chunk[:4] == OGG[: len(chunk)]


def begins(chunk: bytes) -> bool:
    """Whether a stream of a known format begins with that."""
    if chunk.startswith(EBML):
        return True
    # The flag of a page that begins a stream.
    return chunk.startswith(OGG) and len(chunk) > 5 and bool(chunk[5] & 2)


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

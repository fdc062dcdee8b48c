"""The connections that are not WebSockets, by address: how many there are, and which one gives way to a new one."""

from __future__ import annotations

from itertools import islice

from tornado.iostream import IOStream

# Of so many connections one is looked for that waits for a request.
LOOKED_AT = 256


class PlainConnections:
    """Their streams, in the order of the beginning of their newest requests, the longest ago first."""

    def __init__(self) -> None:
        self._all: dict[IOStream, str] = {}
        self._of: dict[str, dict[IOStream, None]] = {}

    def add(self, stream: IOStream, address_key: str) -> None:
        self._all[stream] = address_key
        self._of.setdefault(address_key, {})[stream] = None

    def renew(self, stream: IOStream) -> None:
        """It waits for its next request from now on."""
        if (address_key := self._all.get(stream)) is not None:
            self.remove(stream)
            self.add(stream, address_key)

    def remove(self, stream: IOStream) -> None:
        address_key = self._all.pop(stream, None)
        if address_key is None:
            return
        of_address = self._of[address_key]
        del of_address[stream]
        if not of_address:
            del self._of[address_key]

    def count(self, address_key: str) -> int:
        return len(self._of.get(address_key, ()))

    def close_idle(self, address_key: str | None = None) -> bool:
        """Close the one that has waited longest for a request, of that address or of all. Whether there was one."""
        streams = self._all if address_key is None else self._of.get(address_key, {})
        for stream in islice(streams, LOOKED_AT):
            # Waiting for the end of a header.
            if stream._read_regex is not None:
                self.remove(stream)
                stream.close()
                return True
        return False

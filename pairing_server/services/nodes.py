"""This process among the servers of its database: each second it notes there that it runs.

Two devices of a pairing must meet on one server. A join is refused while the other device is connected to another server
that runs; so a server that has crashed, or stops, must not count as running for long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

from pairing_server.db.database import Database
from pairing_server.store import nodes as store


@dataclass(slots=True)
class NodeRegistry:
    """`id`: this start's. `name`: host, port and data directory; a start takes the place of an earlier one under the same name."""

    database: Database
    name: str = ""
    id: UUID = field(default_factory=uuid4)
    _begun: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)

    async def beat(self) -> None:
        """Note that this process runs."""
        if self._ended:
            return
        if self._begun:
            await store.beat(self.database.once, self.id, self.name)
        else:
            await store.begin(self.database.once, self.id, self.name)
            self._begun = True

    async def end(self) -> None:
        """Note that this process stops: from now on other servers may take over its channels."""
        self._ended = True
        await store.end(self.database.once, self.id)

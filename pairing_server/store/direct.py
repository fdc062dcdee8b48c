"""Statements that go to the driver directly: how a store function is given the way there.

What everybody waits for is one round trip, without SQLAlchemy's share of the time. See `Database.once` and `Database.lane`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg

# Sends a statement with its values and returns the first row. `Database.once` also takes `again`: what to send the
# second time, if the connection is lost.
Fetch = Callable[..., Awaitable[asyncpg.Record | None]]

"""Whether servers use a database."""

from __future__ import annotations

import asyncpg

# What a server calls its connections, where its URL says nothing else.
APPLICATION_NAME = "pairing-server"
# The name of another role's connection is hidden from most roles; then the role counts.
_CONNECTED = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (application_name IN ($1, nullif(current_setting('application_name'), '')) OR application_name IS NULL AND usename = $2)
"""


async def connected(driver: asyncpg.Connection, running: str) -> int:
    """How many connections of servers the database has. `running`: their role."""
    found: int = await driver.fetchval(_CONNECTED, APPLICATION_NAME, running)
    return found

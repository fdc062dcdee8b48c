"""The state of a running server, which `pairing-server status` reads from a Unix socket. It has no secrets.

The socket is in the data directory and open to the owner alone. A connection gets one answer; nothing is read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from pairing_server.clock import utcnow
from pairing_server.errors import Unavailable
from pairing_server.relay.connection import Connection
from pairing_server.server.server import Node

log = logging.getLogger(__name__)

PATTERN = "status-*.socket"
# How many connections are listed one by one.
MAX_LISTED = 1000


async def describe(node: Node) -> dict[str, Any]:
    """The state of the node, for people and programs."""
    backend, hub, now = node.backend, node.hub, node.app.now()
    rules, audit = backend.rules, node.audit
    open_, used, size = node.database.usage()
    outage, saved = node.database.breaker.outage, node.app.last_backup
    limits = hub.context.limits
    return {
        "version": backend.version,
        "pid": os.getpid(),
        "state": "draining" if node.app.draining else "starting" if node.app.starting else "running",
        "connections": {
            "open": len(hub.connections),
            "users": len({connection.subject for connection in hub.connections.values()}),
            **Counter(connection.device_type for connection in hub.connections.values()),
        },
        "channels": {
            str(n): c for n, c in sorted(Counter(len(c.members) for c in hub.channels.values()).items())
        },
        "codes_live": backend.code_limits.live,
        "limits": {
            **asdict(limits),
            "code_rate": str(node.config.code_rate),
            "code_ttl": rules.code_ttl,
            "max_live_codes": rules.max_live_codes,
        },
        "database": {
            "up": outage is None,
            "away_because": outage.reason if outage else None,
            "connections": {"used": used, "idle": open_ - used, "at_most": size},
            "backup_age_s": round((utcnow() - saved).total_seconds()) if saved else None,
        },
        "audit": {"waiting": audit.waiting, "lost": audit.lost, "last_seal": await _last_seal(node)},
        "devices": [_device(connection, now) for connection in list(hub.connections.values())[:MAX_LISTED]],
    }


def _device(connection: Connection, now: float) -> dict[str, Any]:
    """`now`: the loop's monotonic seconds."""
    return {
        "user": connection.subject,
        "device_type": connection.device_type,
        "address": connection.peer.address,
        "connection_id": connection.connection_id,
        "pairing_id": str(connection.channel.pairing_id) if connection.channel else None,
        "connected_s": round(now - connection.opened_at),
        "messages": connection.received,
        "waiting_bytes": connection.send_queue.size,
    }


async def _last_seal(node: Node) -> dict[str, Any] | None:
    with suppress(Unavailable):
        if (last := await node.services.audit.sealer.last()) is not None:
            age = (utcnow() - datetime.fromisoformat(last.sealed_at)).total_seconds()
            return {"number": last.number, "age_s": round(age)}
    return None


class StatusSocket:
    """The socket at `path`. A failure to open it is logged, and the server runs without it."""

    def __init__(self, folder: Path, describe: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self.path = folder / f"status-{os.getpid()}.socket"
        self._describe = describe
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        before = os.umask(0o177)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._answer, self.path)
        except OSError as error:
            log.warning("status socket not opened", extra={"path": str(self.path), "error": str(error)})
        finally:
            os.umask(before)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(json.dumps(await self._describe()).encode())
            await writer.drain()
        except OSError:
            pass  # the client has gone
        except Exception:
            log.exception("status failed")
        finally:
            writer.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)

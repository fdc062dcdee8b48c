"""The pairing server as it is measured: the real one, on a database of the run's own, with all its checks.

Limits are raised by settings, not removed. Users and pairings are put into the database below HTTP, for
there are thousands; what then opens sockets and joins goes the way every device goes.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg

from bench.processes import Processes, free_port, python_module
from bench.servers import Server
from bench.wire import Pair, Seat, dumps, framed
from pairing_server.db import migrations
from pairing_server.db.embedded.postgres import EmbeddedPostgres
from pairing_server.security.keys import format_keys, generate_key
from pairing_server.security.tokens import AccessClaims, Tokens
from pairing_server.services.codes import Codes

OURS, TITLE = "pairing-server", "pairing server"

# A device sends 60 messages a second at most; here it is the server that shall be the limit.
RAISED = {
    "PAIRING_CODE_RATE": "1000/300",
    "PAIRING_CODE_RATE_ADDRESS": "1000/300",
    "PAIRING_CODES_PER_USER": "1000",
    "PAIRING_MAX_LIVE_CODES": "1000000",
    "PAIRING_CODE_TTL": "600",
    "PAIRING_MESSAGE_RATE": "10000000",
    "PAIRING_MESSAGE_BURST": "10000000",
    "PAIRING_FRAME_RATE": "10000000",
    "PAIRING_JOIN_RATE": "1000/10",
    "PAIRING_CONNECTIONS_PER_ADDRESS": "1000000",
    "PAIRING_CONNECTIONS_PER_USER": "1000000",
    "PAIRING_LOG_LEVEL": "warning",
    # Each user of the load has an address of his own, as the proxy of a real one says.
    "PAIRING_TRUSTED_PROXIES": "127.0.0.1",
}

ADD_USERS = """
    INSERT INTO users (id, username, username_key, password_hash, role, created_at)
    SELECT id, 'bench-' || id, 'bench-' || id, 'none', 'user', now() FROM unnest($1::uuid[]) AS id
"""
_ADD_PAIRINGS = """
    INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, mobile_session, mobile_user,
                          created_at, expires_at, redeemed_at)
    SELECT gen_random_uuid(), mac, 'redeemed', 'desktop-' || subject, subject, 'mobile-' || subject, subject,
           now(), now() + interval '10 minutes', now()
    FROM unnest($1::bytea[], $2::text[]) AS made(mac, subject)
"""
_ADD_CODES = """
    INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, created_at, expires_at)
    SELECT gen_random_uuid(), mac, 'pending', 'waiting-' || encode(mac, 'hex'), 'waiting-' || encode(mac, 'hex'),
           now(), now() + interval '1 hour'
    FROM unnest($1::bytea[]) AS mac
    ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class User:
    """`access`: an access token, as of somebody who has logged in."""

    subject: str
    access: str
    claims: AccessClaims


class Site:
    """The database of the run, and the pairing servers on it."""

    def __init__(self, processes: Processes, folder: Path, server_core: int, url: str | None = None) -> None:
        """Start the database on the cores of this process; `url`: take that one instead."""
        self.processes = processes
        self._folder = folder
        self._core = server_core
        keys = [generate_key()]
        self.keys = format_keys(keys)
        self._tokens = Tokens(keys)
        self._codes = Codes([key.secret for key in keys])
        self._free_codes = random.sample(range(10**6), 10**6)
        self.postgres = EmbeddedPostgres(folder / "database")
        self.url = url or self.postgres.start()
        migrations.migrate(self.url)

    def close(self) -> None:
        """Stop the database. The servers on it are stopped with the other processes."""
        self.postgres.stop()

    def start(self) -> Server:
        """Start a pairing server. Raises NotStarted."""
        port = free_port()
        inherited = {name: "" for name in os.environ if name.startswith("PAIRING_")}
        settings = {
            **inherited,
            **RAISED,
            "PAIRING_PORT": str(port),
            "PAIRING_DATABASE_URL": self.url,
            "PAIRING_JWT_KEYS": self.keys,
        }
        process = self.processes.start(OURS, python_module("pairing_server", "serve"), self._core, settings)
        return Server(OURS, TITLE, process, port, lambda count, size: self.pairs_at(port, count, size))

    def execute(self, statement: str, *values: Sequence[object]) -> None:
        """Run one statement on the database, however long it takes."""

        async def run() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute(statement, *values)
            finally:
                await connection.close()

        asyncio.run(run())

    def users(self, count: int) -> list[User]:
        """New users, logged in."""
        now = datetime.now(UTC)
        ids = [uuid4() for _ in range(count)]
        self.execute(ADD_USERS, ids)
        until = now + timedelta(days=1)
        return [
            User(
                str(id_),
                self._tokens.issue_access(str(id_), now).token,
                AccessClaims(str(id_), "bench", "bench", until - timedelta(days=1), until, foreign=False),
            )
            for id_ in ids
        ]

    def _macs(self, codes: Sequence[str]) -> list[bytes]:
        return [self._codes.macs(code)[0] for code in codes]

    def _draw(self, count: int) -> list[str]:
        return [f"{self._free_codes.pop():06d}" for _ in range(count)]

    def add_live_codes(self, count: int) -> None:
        """Let that many codes wait, of as many desktops."""
        self.execute(_ADD_CODES, self._macs(self._draw(count)))
        self.execute("ANALYZE pairings")

    def pairs_at(self, port: int, count: int, size: int) -> list[Pair]:
        users = self.users(count)
        codes = self._draw(count)
        # The server may have drawn some of them itself meanwhile.
        self.execute("DELETE FROM pairings WHERE code_mac = ANY ($1)", self._macs(codes))
        self.execute(_ADD_PAIRINGS, self._macs(codes), [user.subject for user in users])
        return [
            (self._seat(port, user, "desktop", code, size), self._seat(port, user, "mobile", code, size))
            for user, code in zip(users, codes, strict=True)
        ]

    def _seat(self, port: int, user: User, device_type: str, code: str, size: int) -> Seat:
        channel = Codes.channel(code)
        device = {"device_type": device_type, "session_id": f"{device_type}-{user.subject}"}
        token = self._tokens.issue_ws(user.claims, device_type, None, datetime.now(UTC)).token
        script = [
            ("wait", '"connected"'),
            ("send", dumps({"type": "identify", **device})),
            ("wait", '"identified"'),
            ("send", dumps({"type": "join_channel", "channel": channel, **device})),
            ("wait", '"channel_joined"'),
        ]
        head = dumps({"type": "channel_message", "channelId": channel})[:-1] + ',"payload":'
        before, after = framed(head, "}", size)
        mobile = "-mobile" if device_type == "mobile" else ""
        return Seat(
            f"ws://127.0.0.1:{port}/ws?token={token}",
            script,
            before,
            after,
            access=user.access,
            token_path=f"/api/auth/ws-token{mobile}",
        )

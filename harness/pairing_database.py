"""The database of a run, with accounts and pairings by the thousand. They are written below HTTP; every connection
that is then made with them goes through the whole server.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import asyncpg

from harness.load_client import Endpoint, Pair, frame_template
from pairing_server.config import Configuration
from pairing_server.db import migrations
from pairing_server.db.embedded.postgres import EmbeddedPostgres
from pairing_server.security.keys import format_keys, generate_key
from pairing_server.security.tokens import AccessClaims, Tokens
from pairing_server.services.codes import Codes

# The limits are checked and not met: the server is to be the limit, not a rate.
RAISED_LIMITS = {
    "PAIRING_CODE_RATE": "100000/300",
    "PAIRING_CODE_RATE_ADDRESS": "100000/300",
    "PAIRING_CODES_PER_USER": "1000",
    "PAIRING_MAX_LIVE_CODES": "1000000",
    "PAIRING_CODE_TTL": "600",
    "PAIRING_MESSAGE_RATE": "10000000",
    "PAIRING_MESSAGE_BURST": "10000000",
    "PAIRING_FRAME_RATE": "10000000",
    "PAIRING_JOIN_RATE": "1000/10",
    "PAIRING_CONNECTIONS_PER_ADDRESS": "1000000",
    "PAIRING_CONNECTIONS_PER_USER": "1000000",
    "PAIRING_CONNECT_RATE": "1000000/1",
    "PAIRING_WS_TOKEN_RATE": "1000000/1",
    "PAIRING_LOG_LEVEL": "warning",
    # Each account of the load has an address of its own, as a proxy would say it.
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
    """`access`: an access token of a login."""

    subject: str
    access: str
    claims: AccessClaims


class PairingDatabase:
    """A migrated database, and keys with which tokens and codes for it are made. Leaving the `with` block stops it."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """Start an embedded PostgreSQL in `folder`, on the cores of this process; or take the one at `url`."""
        keys = [generate_key()]
        self._tokens = Tokens(keys, ws_ttl=Configuration().ws_token_ttl)
        self._codes = Codes([key.secret for key in keys])
        self._unused_codes = random.sample(range(10**6), 10**6)
        self.postgres = EmbeddedPostgres(folder / "database")
        self.url = url or self.postgres.start()
        # What a server on this database is started with.
        self.settings = {
            **RAISED_LIMITS,
            "PAIRING_DATABASE_URL": self.url,
            "PAIRING_JWT_KEYS": format_keys(keys),
        }
        migrations.migrate(self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.postgres.stop()

    def execute(self, statement: str, *values: Sequence[object]) -> None:
        """Run one statement, without a timeout."""

        async def run() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute(statement, *values)
            finally:
                await connection.close()

        asyncio.run(run())

    def add_users(self, count: int) -> list[User]:
        """New users with a login each."""
        now = datetime.now(UTC)
        ids = [uuid4() for _ in range(count)]
        self.execute(ADD_USERS, ids)
        return [
            User(
                str(id_),
                self._tokens.issue_access(str(id_), now).token,
                AccessClaims(str(id_), "bench", "bench", now, now + timedelta(days=1), foreign=False),
            )
            for id_ in ids
        ]

    def _macs(self, codes: Sequence[str]) -> list[bytes]:
        return [self._codes.macs(code)[0] for code in codes]

    def _draw_codes(self, count: int) -> list[str]:
        return [f"{self._unused_codes.pop():06d}" for _ in range(count)]

    def add_live_codes(self, count: int) -> None:
        """That many codes that have not been redeemed, each of another desktop."""
        self.execute(_ADD_CODES, self._macs(self._draw_codes(count)))
        self.execute("ANALYZE pairings")

    def add_pairs(self, port: int, count: int, size_bytes: int) -> list[Pair]:
        """Pairings of new users, as endpoints of the server on that port, with messages of that size."""
        users = self.add_users(count)
        codes = self._draw_codes(count)
        # The server may have drawn some of them itself.
        self.execute("DELETE FROM pairings WHERE code_mac = ANY ($1)", self._macs(codes))
        self.execute(_ADD_PAIRINGS, self._macs(codes), [user.subject for user in users])

        def endpoint(user: User, code: str, device_type: str) -> Endpoint:
            token = self._tokens.issue_ws(user.claims, device_type, None, datetime.now(UTC)).token
            device = {"device_type": device_type, "session_id": f"{device_type}-{user.subject}"}
            url = f"ws://127.0.0.1:{port}/ws?token={token}"
            made = pairing_endpoint(url, device, Codes.channel(code), size_bytes)
            mobile = "-mobile" if device_type == "mobile" else ""
            return replace(made, access=user.access, token_path=f"/api/auth/ws-token{mobile}")

        return [
            (endpoint(user, code, "desktop"), endpoint(user, code, "mobile"))
            for user, code in zip(users, codes, strict=True)
        ]


def pairing_endpoint(url: str, device: dict[str, str], channel: str, size_bytes: int) -> Endpoint:
    """A device that identifies itself and joins its channel. `device`: its device_type and session_id."""
    script = [
        ("wait", '"connected"'),
        ("send", _json({"type": "identify", **device})),
        ("wait", '"identified"'),
        ("send", _json({"type": "join_channel", "channel": channel, **device})),
        ("wait", '"channel_joined"'),
    ]
    head = _json({"type": "channel_message", "channelId": channel})[:-1] + ',"payload":'
    before, after = frame_template(head, "}", size_bytes)
    return Endpoint(url, script, before, after)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))

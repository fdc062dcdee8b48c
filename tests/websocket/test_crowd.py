"""Many channels that talk at once: each device hears its peer, and no other device."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text as sql

from pairing_server.clock import utcnow
from pairing_server.security.tokens import AccessClaims
from pairing_server.services.codes import Codes
from tests.conftest import StartNode
from tests.devices import Site
from tests.leaks import RUN
from tests.longer import count
from tests.websocket.raw import PING, PONG, TEXT, RawSocket, frame

CHANNELS = count(60, 500)
MESSAGES = 24
AT_ONCE = 50

ADD_USER = sql(
    "INSERT INTO users (id, username, username_key, password_hash, role, created_at)"
    " VALUES (:id, :name, :name, 'none', 'user', now())"
)
ADD_PAIRING = sql(
    "INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, mobile_session, mobile_user,"
    " created_at, expires_at, redeemed_at)"
    " VALUES (gen_random_uuid(), :mac, 'redeemed', :desktop, :user, :mobile, :user,"
    " now(), now() + interval '10 minutes', now())"
)


@dataclass
class Member:
    """One end of a channel. `sent`: what its peer is to hear, in that order; `errors`: what it is to be told."""

    raw: RawSocket
    token: str
    device_type: str
    session_id: str
    channel: str
    sent: list[str]
    script: list[bytes]
    errors: int = 0

    async def join(self, site: Site) -> None:
        await self.raw.open(site, f"?token={self.token}")
        join = {"type": "join_channel", "channel": self.channel, "session_id": self.session_id}
        await self.raw.send(TEXT, json.dumps(join).encode())
        while (await self.message())["type"] != "channel_joined":
            pass

    async def message(self) -> dict[str, Any]:
        """The next message. Where all this takes long, the server's pings are answered."""
        while (found := await self.raw.read()).opcode == PING:
            await self.raw.send(PONG, found.payload)
        assert found.opcode == TEXT, found
        message: dict[str, Any] = json.loads(found.payload)
        return message

    def prepare(self, draw: random.Random, names: list[str]) -> None:
        """What it is going to say: tagged, under any of its channel's names, and some to strangers."""
        for number in range(MESSAGES):
            tag = f"{self.channel}/{self.device_type}/{number}"
            name = draw.choice(("channel", "channelId", "channel_id"))
            kind: dict[str, Any] = draw.choice(
                (
                    {"type": "channel_message", "payload": {"tag": tag}},
                    {"type": "channel_message", "payload": {"tag": tag, "pad": "x" * draw.randrange(3000)}},
                    {"type": "audio_chunk", "data": tag} if number < 18 else {"type": "nonsense"},
                )
            )
            named = draw.choice((None, self.channel, self.channel, draw.choice(names)))
            message = {**kind, name: named} if named else kind
            if kind["type"] == "nonsense" or named not in (None, self.channel):
                self.errors += 1
            else:
                self.sent.append(tag)
            self.script.append(frame(TEXT, json.dumps(message).encode()))
        self.sent.append("end")
        self.script.append(frame(TEXT, b'{"type":"channel_message","payload":{"tag":"end"}}'))

    async def talk(self, draw: random.Random) -> None:
        """Say it in segments of any size."""
        while self.script:
            count = draw.randrange(1, 8)
            segment, self.script = self.script[:count], self.script[count:]
            await self.raw.send_bytes(b"".join(segment))
            await asyncio.sleep(0)

    async def hear(self) -> tuple[list[str], int, list[int]]:
        """The tags up to the last, how many errors there were, and the numbers of the messages."""
        tags: list[str] = []
        errors, numbers = 0, list[int]()
        while not tags or tags[-1] != "end" or errors < self.errors:
            message = await self.message()
            if message["type"] == "error":
                assert message["code"] in ("INVALID_CHANNEL", "UNKNOWN_TYPE"), message
                errors += 1
            elif message["type"] in ("channel_message", "audio_chunk"):
                assert message["channel"] == message["channelId"] == self.channel
                payload = message.get("payload")
                tags.append(payload["tag"] if payload else message["data"])
                numbers += [message["seq"]] if payload else []
        return tags, errors, numbers


async def members(site: Site) -> list[tuple[Member, Member]]:
    """The channels' members, put into the database below HTTP: there are too many to pair them one by one."""
    now, node = utcnow(), site.node
    pairs: list[tuple[Member, Member]] = []
    users: list[dict[str, Any]] = []
    pairings: list[dict[str, Any]] = []
    for code in range(CHANNELS):
        user, digits = uuid4(), f"{code * 1999:06d}"
        subject = str(user)
        connections = {role: f"{role}-{subject}" for role in ("desktop", "mobile")}
        users.append({"id": user, "name": f"user-{subject}"})
        pairings.append({"mac": node.backend.codes.macs(digits)[0], "user": subject, **connections})
        claims = AccessClaims(subject, "login", "login", now, now + timedelta(hours=1), foreign=False)
        tokens = {role: node.backend.tokens.issue_ws(claims, role, None, now).token for role in connections}
        for token in tokens.values():
            RUN.secrets.add("token", token)
        desktop, mobile = [
            Member(RawSocket(), tokens[role], role, connections[role], Codes.channel(digits), [], [])
            for role in connections
        ]
        pairs.append((desktop, mobile))
    async with site.node.database.transaction() as conn:
        # All rows at once: a transaction has seconds only.
        await conn.execute(ADD_USER, users)
        await conn.execute(ADD_PAIRING, pairings)
    return pairs


@pytest.fixture
def roomy(start_node: StartNode) -> Site:
    return start_node(connections_per_address=10_000, message_rate=1000, message_burst=1000)


async def test_many_channels_hear_only_themselves_once_and_in_order(roomy: Site) -> None:
    draw = random.Random(3)
    pairs = await members(roomy)
    everybody = [member for pair in pairs for member in pair]
    names = [desktop.channel for desktop, _ in pairs]
    for member in everybody:
        member.prepare(draw, names)
    hearing: list[asyncio.Future[tuple[list[str], int, list[int]]]] = []
    for start in range(0, len(everybody), AT_ONCE):
        some = everybody[start : start + AT_ONCE]
        await asyncio.gather(*(member.join(roomy) for member in some))
        # From now on each hears, and answers pings.
        hearing += [asyncio.ensure_future(member.hear()) for member in some]
    await asyncio.gather(*(member.talk(draw) for member in everybody))
    heard = await asyncio.gather(*hearing)
    peers = [peer for desktop, mobile in pairs for peer in (mobile, desktop)]
    for member, peer, (tags, errors, numbers) in zip(everybody, peers, heard, strict=True):
        assert tags == peer.sent
        assert errors == member.errors
        assert numbers == sorted(set(numbers))
    assert sum(len(tags) for tags, _, _ in heard) > CHANNELS * MESSAGES
    assert sum(errors for _, errors, _ in heard) > CHANNELS

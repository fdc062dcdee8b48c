"""How a connection ends: the closing handshake, the time limits, floods; once, whatever comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pairing_server.config import Configuration
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection import Connection
from pairing_server.websocket.engine import CLOSE_TIMEOUT
from tests.devices import Site
from tests.web.clock import Clock
from tests.websocket.raw import BINARY, CLOSE, PING, PONG, TEXT, Frame, RawSocket, frame
from tests.websocket.raw_pair import ping_time_passes, undisturbed

pytestmark = pytest.mark.one_node

LIMITS = Configuration().connection_limits
BEAT = b'{"type":"ping","sequence":5}'


class Peer:
    """A raw connection with what the server holds of it."""

    def __init__(self, site: Site, raw: RawSocket, connection: Connection) -> None:
        self.site = site
        self.raw = raw
        self.connection = connection
        self.protocol: Any = connection._transport

    @property
    def timer(self) -> asyncio.TimerHandle | None:
        """What ends a closing handshake that the client leaves open."""
        found: asyncio.TimerHandle | None = self.protocol._closing_timer
        return found

    @property
    def buffered(self) -> int:
        """Bytes that the engine holds for the client or of a message that is being joined."""
        transport, message = self.protocol._transport, self.protocol._partial
        unsent = transport.get_write_buffer_size() if transport else 0
        return int(unsent + (message.size if message else 0))

    @property
    def gone(self) -> bool:
        return self.connection.connection_id not in self.site.node.hub.connections

    async def until_gone(self) -> None:
        """Let the node work until it has noticed."""
        for _ in range(500):
            if self.gone:
                return
            await self.site.get("/healthz")
        raise AssertionError("it is still there")


async def peer(site: Site, token: str) -> Peer:
    raw = RawSocket()
    await raw.open(site, f"?token={token}")
    greeting = json.loads((await raw.read()).payload)
    return Peer(site, raw, site.node.hub.connections[greeting["client_id"]])


async def token_of(site: Site) -> str:
    return await site.ws_token(await site.account(), "desktop")


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason)


async def test_a_clients_close_is_answered_with_its_code(site: Site) -> None:
    codes = (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4409, 4999)
    for code in codes:
        # The audit log folds what one user does without end.
        token = await token_of(site)
        for reason in (b"", "bye é".encode(), b"x" * 123):
            raw = (await peer(site, token)).raw
            await raw.send_bytes(closing(code, reason) + frame(TEXT, BEAT) + frame(PING))
            assert [found.payload for found in await raw.rest()] == [struct.pack(">H", code)]
            raw.close()
    empty = await peer(site, await token_of(site))
    await empty.raw.send(CLOSE)
    assert await empty.raw.rest() == [Frame(CLOSE, b"")]
    empty.raw.close()
    ends = await site.events("ws.disconnected")
    assert Counter(end["close_code"] for end in ends) == {**dict.fromkeys(codes, 3), None: 1}
    assert empty.gone


async def test_what_came_before_the_clients_close_is_still_done(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    token = await site.ws_token(account, "mobile")
    raw = (await peer(site, token)).raw
    messages: list[dict[str, Any]] = [
        {"type": "join_channel", "channel": mobile.channel, "session_id": mobile.session_id},
        {"type": "channel_message", "payload": {"n": 1}},
        {"type": "unpair"},
    ]
    await raw.send_bytes(b"".join(frame(TEXT, json.dumps(m).encode()) for m in messages) + closing(1000) * 2)
    # Unpairing closes the connection, before its own close has had its turn.
    assert (await raw.rest())[-1].close_code == 4410
    raw.close()
    assert await mobile.socket.closed() == 4409
    await desktop.socket.expect("client_joined")
    assert (await desktop.socket.expect("channel_message"))["payload"] == {"n": 1}
    assert (await desktop.socket.expect("mobile_disconnected"))["reason"] == "unpaired"


async def test_after_the_servers_close_nothing_is_taken_or_sent_until_the_client_answers(
    site: Site,
) -> None:
    one = await peer(site, await token_of(site))
    one.connection.close(CloseCode.REPLACED, "session replaced")
    assert await one.raw.read() == Frame(CLOSE, struct.pack(">H", 4409) + b"session replaced")
    await one.raw.send_bytes(
        frame(TEXT, BEAT)
        + frame(BINARY, b"\x00")
        + frame(PING, b"beat")
        + frame(PONG)
        + frame(TEXT, b"{", final=False)
        + frame(0, b"}")
    )
    assert not one.gone
    await one.raw.send_bytes(closing(4409))
    assert await one.raw.rest() == []
    one.raw.close()
    await one.until_gone()
    assert one.connection.received == 0
    [end] = await site.events("ws.disconnected")
    assert (end["close_code"], end["by"]) == (4409, "server")


async def test_a_client_that_breaks_the_protocol_after_our_close_gets_no_second_close_frame(
    site: Site,
) -> None:
    token = await token_of(site)
    for broken in (frame(3), frame(0, b"x"), frame(TEXT, b"\xff"), closing(1005), frame(CLOSE, b"x")):
        one = await peer(site, token)
        one.connection.close(CloseCode.FORBIDDEN, "no")
        await one.raw.send_bytes(broken + closing(1000))
        assert [found.close_code for found in await one.raw.rest()] == [4403]
        one.raw.close()


async def test_a_client_that_never_answers_our_close_has_five_seconds(site: Site) -> None:
    one = await peer(site, await token_of(site))
    assert one.timer is None
    one.connection.close(CloseCode.NOT_IDENTIFIED, "late")
    timer = one.timer
    assert timer is not None
    left = timer.when() - asyncio.get_running_loop().time()
    assert CLOSE_TIMEOUT - 4 < left <= CLOSE_TIMEOUT == 5
    assert (await one.raw.read()).close_code == 4408
    assert not one.gone
    timer._run()
    timer.cancel()
    with pytest.raises((EOFError, ConnectionError)):
        await one.raw.read()
    one.raw.close()
    await one.until_gone()
    assert [end["close_code"] for end in await site.events("ws.disconnected")] == [4408]


async def test_a_flood_after_our_close_is_cut_at_once(site: Site) -> None:
    Clock(site)
    token = await token_of(site)
    for flood in (frame(PING, b"x"), frame(PONG), frame(0, b"", final=False), frame(TEXT, BEAT)):
        one = await peer(site, token)
        one.connection.close(CloseCode.FORBIDDEN, "no")
        with contextlib.suppress(ConnectionError):
            await one.raw.send_bytes(flood * 1000)
        # No answer to the close frame was sent; the timer has four seconds left.
        await one.until_gone()
        one.raw.close()
    ends = await site.events("ws.disconnected")
    assert [end["close_code"] for end in ends] == [4403] * 4


async def _client_resets(one: Peer) -> None:
    one.raw.reset()


async def _client_closes_the_connection(one: Peer) -> None:
    one.raw.close()


async def _server_aborts(one: Peer) -> None:
    one.protocol._abort()


async def _both_at_once(one: Peer) -> None:
    one.raw.reset()
    one.protocol._abort()
    one.protocol._abort()


async def _server_closes_and_client_resets(one: Peer) -> None:
    one.connection.close(CloseCode.FORBIDDEN, "no")
    one.raw.reset()


async def _client_closes_and_resets(one: Peer) -> None:
    await one.raw.send_bytes(closing(1000))
    one.raw.reset()


async def _both_close(one: Peer) -> None:
    await one.raw.send_bytes(closing(1000))
    one.connection.close(CloseCode.FORBIDDEN, "no")
    await one.raw.rest()


async def _in_the_middle_of_a_message(one: Peer) -> None:
    await one.raw.send_bytes(frame(TEXT, BEAT, final=False) + frame(TEXT, BEAT)[:9])
    one.raw.reset()


async def _while_a_message_is_served(one: Peer) -> None:
    identify = b'{"type":"identify","device_type":"desktop","session_id":"desktop-1"}'
    await one.raw.send_bytes(frame(TEXT, identify) * 3)
    one.raw.reset()
    one.protocol._abort()


WAYS: tuple[Callable[[Peer], Awaitable[None]], ...] = (
    *(_client_resets, _client_closes_the_connection, _server_aborts, _both_at_once),
    *(_server_closes_and_client_resets, _client_closes_and_resets, _both_close),
    *(_in_the_middle_of_a_message, _while_a_message_is_served),
)


async def test_on_close_is_called_once_whichever_side_ends_first(site: Site) -> None:
    token = await token_of(site)
    for number, way in enumerate(WAYS, 1):
        one = await peer(site, token)
        await way(one)
        await one.until_gone()
        one.raw.close()
        assert len(await site.events("ws.disconnected")) == number, way
    assert site.node.hub.connections == {}


async def test_a_connection_that_ends_with_its_upgrade_leaves_its_descriptor_to_the_next(site: Site) -> None:
    token = await token_of(site)
    for behind in (closing(1000), frame(3), frame(PING) * 1000):
        raw = RawSocket()
        await raw.open(site, f"?token={token}", behind=behind)
        assert (await raw.rest())[-1].opcode == CLOSE
        raw.close()
        gone = RawSocket()
        await gone.open(site, f"?token={token}", behind=behind)
        gone.reset()
        while site.node.hub.connections:
            await site.get("/healthz")
        # The lowest free descriptors are given out first.
        following = [await peer(site, token) for _ in range(3)]
        for one in following:
            await one.raw.send(TEXT, BEAT)
            assert b'"pong"' in (await one.raw.read()).payload
            one.raw.close()
            await one.until_gone()


async def pinged(one: Peer) -> None:
    """A ping has come and was answered, and the server has read that."""
    assert await one.raw.read() == Frame(PING, b"")
    await one.raw.send(PONG)
    await one.raw.send(TEXT, BEAT)
    assert b'"pong"' in (await one.raw.read()).payload


async def test_a_client_that_does_not_answer_our_ping_is_closed_and_its_peer_notified(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    dead = await peer(site, await site.ws_token(account, "mobile"))
    live = await peer(site, await site.ws_token(account, "mobile"))
    join = {"type": "join_channel", "channel": mobile.channel, "session_id": mobile.session_id}
    await dead.raw.send(TEXT, json.dumps(join).encode())
    await desktop.socket.expect("client_joined")
    assert await mobile.socket.closed() == 4409
    for one in (dead, live):
        await ping_time_passes(one.connection, LIMITS.ping_interval)
    for _ in range(3):
        await pinged(live)
        await ping_time_passes(live.connection, LIMITS.ping_timeout)
        await ping_time_passes(live.connection, LIMITS.ping_interval - LIMITS.ping_timeout)
    assert not dead.gone
    await ping_time_passes(dead.connection, LIMITS.ping_timeout)
    assert (await desktop.socket.expect("mobile_disconnected"))["channel"] == mobile.channel
    assert dead.gone
    assert not live.gone
    sent = [found.opcode for found in await dead.raw.rest()]
    assert sent[-1:] == [PING]
    assert CLOSE not in sent
    live.raw.close()
    dead.raw.close()


FLOODS = (
    ("pings", frame(PING, b"x" * 125) * 10_000, 4429),
    ("pings", frame(PING) * 10_000, 4429),
    ("fragments", frame(TEXT, final=False) + frame(0, final=False) * 100_000, 4429),
    ("fragments", frame(BINARY, b"x" * 1000, final=False) + frame(0, b"x" * 1000, final=False) * 500, 4429),
    ("frames", frame(PONG) * 100_000, 4429),
    # Tiny messages: ten bad ones in a row are enough.
    (None, frame(TEXT, b"x") * 100_000, 4400),
    (None, frame(BINARY) * 100_000, 4400),
)


async def test_a_flood_is_cut_soon_and_costs_its_neighbours_and_the_memory_nothing(site: Site) -> None:
    Clock(site)
    desktop, mobile = await site.pair()
    token = await token_of(site)
    for _, flood, code in FLOODS:
        one = await peer(site, token)
        sending = asyncio.ensure_future(one.raw.send_bytes(flood))
        # The client reads nothing until it is over.
        held = 0
        while not one.connection.closing:
            await site.get("/healthz")
            held = max(held, one.buffered)
        with contextlib.suppress(ConnectionError):
            await sending
        await one.until_gone()
        assert max(held, one.buffered) <= 70_000
        assert one.connection.close_code == code
        assert one.connection.received <= 64
        assert [found.close_code for found in await one.raw.rest() if found.opcode == CLOSE] in ([code], [])
        one.raw.close()
        await undisturbed(desktop, mobile)
    abuses = [event["kind"] for event in await site.events("limit.protocol_abuse")]
    assert Counter(abuses) == Counter(kind for kind, _, _ in FLOODS if kind)


async def test_a_client_that_reads_nothing_gets_no_more_pongs_than_it_has_room_for(site: Site) -> None:
    one = await peer(site, await token_of(site))
    one.protocol._pings.burst = one.protocol._pings._tokens = 1_000_000.0
    one.protocol._frames.burst = one.protocol._frames._tokens = 1_000_000.0
    for _ in range(40):
        await one.raw.send_bytes(frame(PING, b"x" * 125) * 250)
        await site.get("/healthz")
    assert one.buffered <= 70_000
    newest = frame(PING, b"newest")
    while True:
        # There is room again once something has been read.
        found = await one.raw.read()
        await one.raw.send_bytes(newest)
        if found.payload == b"newest":
            break
    one.raw.close()

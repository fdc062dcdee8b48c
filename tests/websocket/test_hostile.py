"""Clients that flood, dribble, send too much or fall silent: each is dealt with, and the others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import tracemalloc
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from pairing_server.config import Configuration
from pairing_server.relay.audio import binary_frames
from tests.devices import Site
from tests.web.clock import Clock
from tests.websocket.raw import BINARY, PING, PONG, TEXT, Frame, RawSocket, frame
from tests.websocket.raw_pair import (
    codes,
    connected,
    ping_time_passes,
    raw_pair,
    said,
    take_seat,
    text,
    undisturbed,
    until,
)

LIMITS = Configuration().connection_limits
MIB = 1024 * 1024


# Floods

FLOODS = (
    frame(TEXT, final=False) + frame(0, final=False) * 100_000,
    frame(PING) * 10_000,
    frame(PING) * 100_000,
    frame(PING, b"x" * 125) * 10_000,
    said(1) * 5_000,
)


async def test_a_client_that_floods_and_never_reads_is_cut_while_the_others_go_on(site: Site) -> None:
    Clock(site)
    desktop, mobile = await site.pair()
    token = await site.ws_token(await site.account(), "desktop")
    for flood in FLOODS:
        raw, connection = await connected(site, token)
        tracemalloc.start()
        sending = asyncio.ensure_future(raw.send_bytes(flood))
        while not connection.closing:
            await undisturbed(desktop, mobile)
        with contextlib.suppress(ConnectionError):
            await sending
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert connection.close_code == 4429
        assert peak < MIB
        assert connection.received <= 2 * LIMITS.frame_rate
        raw.close()
    await undisturbed(desktop, mobile)


async def test_five_thousand_messages_at_once_are_limited_and_then_cut(site: Site) -> None:
    Clock(site)
    desktop, mobile = await raw_pair(site)
    others = await site.pair()
    before = desktop.connection.received
    with contextlib.suppress(ConnectionError):
        await desktop.raw.send_bytes(b"".join(said(n) for n in range(5_000)))
    # Who is cut while it sends may not get to read all it was told.
    told = codes(await desktop.raw.rest())
    assert told[0] == "RATE_LIMITED"
    assert set(told) <= {"RATE_LIMITED", 4429}
    assert desktop.connection.close_code == 4429
    heard = [m["payload"]["n"] for m in await mobile.pending() if m["type"] == "channel_message"]
    # Its join and its ping before them have counted, too.
    assert heard == list(range(int(LIMITS.message_burst) - before))
    await undisturbed(*others)
    [abuse] = await site.events("limit.protocol_abuse")
    assert abuse["kind"] == "frames"


async def test_who_goes_on_above_the_rate_is_limited_and_closed_after_ten_seconds(site: Site) -> None:
    clock = Clock(site)
    desktop, mobile = await raw_pair(site)
    others = await site.pair()
    connection, seconds, sent, before = desktop.connection, 0.0, 0, desktop.connection.received
    while not connection.closing:
        await desktop.raw.send_bytes(b"".join(said(n) for n in range(sent, sent + 15)))
        sent += 15
        await until(partial(lambda count: connection.received >= count or connection.closing, before + sent))
        clock.put_forward(0.1)
        seconds += 0.1
        assert seconds < 30
    assert connection.close_code == 4429
    assert 10 <= seconds < 13
    refused, *rest = await desktop.raw.rest()
    error = json.loads(refused.payload)
    assert (error["code"], error["retryable"], error["details"]["limit"]) == (
        "RATE_LIMITED",
        True,
        "messages",
    )
    assert 1 <= error["details"]["retry_after_ms"] <= 17
    assert codes(rest) == ["RATE_LIMITED"] * (len(rest) - 1) + [4429]
    [limited] = await site.events("limit.rate")
    assert (limited["scope"], limited["limit"], limited["outcome"]) == ("connection", "messages", "denied")
    heard = [m["payload"]["n"] for m in await mobile.pending() if m["type"] == "channel_message"]
    assert heard == sorted(set(heard))
    assert LIMITS.message_rate * 9 < len(heard) < LIMITS.message_rate * 16
    await undisturbed(*others)


# Too much at once


def padded(size: int, head: str, tail: str) -> str:
    return head + "x" * (size - len(head) - len(tail)) + tail


OVERSIZE = (
    ('{"type":"identify","device_type":"desktop","session_id":"s-12345678","x":"', '"}', 16 * 1024),
    ('{"type":"join_channel","channel":"pair-000000","x":"', '"}', 16 * 1024),
    ('{"type":"settings_sync","settings":{"a":"', '"}}', 16 * 1024),
    ('{"type":"refresh_token","token":"t","x":"', '"}', 16 * 1024),
    ('{"type":"ping","x":"', '"}', 16 * 1024),
    ('{"type":"channel_message","payload":{"a":"', '"}}', 64 * 1024),
    ('{"type":"audio_chunk","data":"', '"}', 512 * 1024),
)


async def test_what_is_a_byte_too_large_is_refused_and_the_connection_stays(site: Site) -> None:
    clock = Clock(site)
    desktop, mobile = await raw_pair(site)
    hearing = asyncio.ensure_future(mobile.messages(4))

    async def told(message: bytes) -> list[Any]:
        # So that only its size counts.
        clock.put_forward(5)
        await desktop.raw.send_bytes(message)
        errors = [m for m in await desktop.pending() if m["type"] == "error"]
        return [(error["code"], error["details"]) for error in errors]

    for head, tail, limit in OVERSIZE:
        for size in (limit + 1, 2 * limit - 2048 if limit > 100_000 else 65 * 1024 + limit):
            refused = [("PAYLOAD_TOO_LARGE", {"limit": limit, "size": size})]
            assert await told(frame(TEXT, padded(size, head, tail).encode())) == refused, (head, size)
        exact = await told(frame(TEXT, padded(limit, head, tail).encode()))
        assert "PAYLOAD_TOO_LARGE" not in [code for code, _ in exact], head
    room = 512 * 1024 - len(binary_frames.encode(b"", 0, None, None, None))
    for size in (room, room + 1, 513 * 1024):
        errors = await told(frame(BINARY, binary_frames.encode(bytes(size), 0, None, None, None)))
        assert [code for code, _ in errors] == (["PAYLOAD_TOO_LARGE"] if size > room else [])
    # Only what was of the right size has gone on.
    assert sorted(message["type"] for message in await hearing) == [
        *("audio_chunk", "audio_chunk"),
        *("channel_message", "settings_sync"),
    ]
    assert await mobile.pending() == []


async def test_a_frame_of_a_hundred_mebibytes_is_refused_by_its_header_and_its_neighbours_go_on(
    site: Site,
) -> None:
    desktop, mobile = await site.pair()
    token = await site.ws_token(await site.account(), "desktop")
    held = [await connected(site, token) for _ in range(20)]
    tracemalloc.start()
    for raw, _ in held:
        for opcode in (TEXT, 0):
            with contextlib.suppress(ConnectionError):
                head = bytes([0x80 | opcode, 0xFF]) + struct.pack(">Q", 100 * MIB) + bytes(4)
                await raw.send_bytes(head + bytes(60_000))
    await undisturbed(desktop, mobile)
    ends = [codes(await raw.rest()) for raw, _ in held]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ends == [[1009]] * 20
    # The large part of it is the sixty thousand bytes that are sent here.
    assert peak < 2 * MIB


# Dribblers


async def dribble(raw: RawSocket) -> None:
    """Send a frame byte by byte and look at nothing, until the server has gone."""
    with contextlib.suppress(ConnectionError):
        await raw.send_bytes(frame(TEXT, b"x" * MIB)[:14])
        while True:
            await raw.send_bytes(b"x")
            await asyncio.sleep(0)


async def test_two_hundred_that_dribble_a_frame_are_dropped_while_others_come_in(site: Site) -> None:
    desktop, mobile = await site.pair()
    account = await site.account()
    token = await site.ws_token(account, "desktop")
    held = [await connected(site, token) for _ in range(200)]
    gone = asyncio.gather(*(dribble(raw) for raw, _ in held))
    for seconds in (LIMITS.ping_interval, LIMITS.ping_timeout):
        # A frame that is not whole is no answer to a ping.
        await (await site.connect(account, "mobile")).pending()
        await undisturbed(desktop, mobile)
        assert [connection.closing for _, connection in held] == [False] * 200
        await asyncio.gather(*(ping_time_passes(connection, seconds) for _, connection in held))
    await gone
    assert len(site.node.hub.connections) == 4


async def test_who_dribbles_instead_of_identifying_is_closed_in_time(site: Site) -> None:
    raw, connection = await connected(site, await site.ws_token(await site.account(), "desktop"))
    sending = asyncio.ensure_future(dribble(raw))
    site.node.hub.check_timeouts(connection.opened_at + LIMITS.identify_within)
    assert not connection.closing
    site.node.hub.check_timeouts(connection.opened_at + LIMITS.identify_within + 0.1)
    assert (await raw.read()).close_code == 4408
    assert connection.close_code == 4408
    protocol: Any = connection._transport
    # The five seconds for the answer to the close frame are over.
    protocol._abort()
    await sending


# Silence


class Blackhole:
    """A way to the server on which, once it is `cut`, everything is lost without a word."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._cut = False
        self._tasks: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Site]:
        """The site as it is reached through it."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        near = Site(self._site.node, server.sockets[0].getsockname()[1])
        try:
            yield near
        finally:
            await near.close()
            server.close()
            for writer in self._writers:
                writer.close()
            await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        self._cut = True

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._site.port)
        self._writers += (writer, far_writer)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.append(asyncio.ensure_future(self._one_way(source, sink)))

    async def _one_way(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self._cut:
                    sink.write(data)


async def test_a_client_whose_packets_are_lost_is_noticed_and_its_place_is_free(site: Site) -> None:
    assert LIMITS.ping_interval + LIMITS.ping_timeout <= 50
    account = await site.account()
    desktop, mobile = await site.pair(account)
    hub, way = site.node.hub, Blackhole(site)
    token = await site.ws_token(account, "mobile")
    async with way.open() as near:
        lost = await take_seat(near, token, mobile)
        await desktop.socket.expect("client_joined")
        assert await lost.pending() == []
        until_ping = LIMITS.ping_interval
        for _ in range(3):
            # It is there as long as its answers come.
            await ping_time_passes(lost.connection, until_ping)
            assert await lost.raw.read() == Frame(PING, b"")
            await lost.raw.send(PONG)
            assert await lost.pending() == []
            await ping_time_passes(lost.connection, LIMITS.ping_timeout)
            until_ping = LIMITS.ping_interval - LIMITS.ping_timeout
        way.cut()
        desktop.socket.send({"type": "channel_message", "payload": {"n": 1}})
        await ping_time_passes(lost.connection, until_ping)
        assert await desktop.socket.pending() == []
        await ping_time_passes(lost.connection, LIMITS.ping_timeout)
        gone = await desktop.socket.expect("mobile_disconnected")
        assert (gone["client_id"], gone["force_disconnect"]) == (mobile.session_id, False)
        assert lost.connection.connection_id not in hub.connections
        assert lost.connection.close_code is None
        again = await site.connect(account, "mobile")
        join = {"type": "join_channel", "channel": mobile.channel, "session_id": mobile.session_id}
        again.send(join)
        assert (await again.expect("channel_joined"))["devices"] == ["desktop", "mobile"]
        await desktop.socket.expect("client_joined")
    [end] = [e for e in await site.events("ws.disconnected") if e["by"] == "network"]
    assert end["close_code"] is None
    # Only the first place was taken over: that of the device that was there.
    assert len(await site.events("channel.replaced")) == 1


# After the server's close


async def test_nothing_is_processed_after_the_server_has_closed_whatever_comes(site: Site) -> None:
    for behind in (said(1), text({"type": "ping"}), text({"type": "unpair"}), frame(PING) * 10):
        desktop, mobile = await raw_pair(site)
        before = desktop.connection.received
        # Ten bad messages in a row close; what comes with them and after them is not looked at.
        await desktop.raw.send_bytes(frame(TEXT, b"{") * 10 + behind)
        await desktop.raw.send_bytes(behind)
        told = codes(await desktop.raw.rest())
        assert told == ["INVALID_MESSAGE"] * 10 + [4400]
        assert desktop.connection.received == before + 10
        assert (await mobile.message())["type"] == "desktop_disconnected"
        assert await mobile.pending() == []

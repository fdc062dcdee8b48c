"""A receiver that reads slowly or not at all: memory is bounded, each loss is announced, and the sender is notified."""

from __future__ import annotations

import asyncio
import re
import socket
from functools import partial

import pytest

from pairing_server.config import Configuration
from pairing_server.websocket.handover import RECEIVE_BUFFER, SEND_BUFFER
from tests.conftest import StartNode
from tests.devices import Site
from tests.web.clock import Clock
from tests.websocket.raw_pair import RawDevice, codes, raw_pair, said, text, until

LIMITS = Configuration().connection_limits
KIB = 1024
CHUNKS = 300


@pytest.fixture
def fast(start_node: StartNode) -> Site:
    """A node that takes as much as comes. Its tests have a Clock: what waits for a slow machine grows no older."""
    return start_node(
        message_rate=1_000_000,
        message_burst=1_000_000,
        frame_rate=1_000_000,
        audio_rate=1_000_000,
        audio_bytes_rate=10**12,
        audio_bytes_burst=10**12,
    )


async def test_the_kernel_holds_little_of_what_a_client_sends_at_once(site: Site) -> None:
    """The process has to hold it next, and goes on holding as much as long as the connection lasts."""
    desktop, _ = await raw_pair(site)
    sock = desktop.protocol._transport.get_extra_info("socket")
    # Linux doubles the value that is set, for its own bookkeeping.
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * RECEIVE_BUFFER
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SEND_BUFFER


def chunk(number: int, size: int = 12 * KIB) -> bytes:
    return text({"type": "audio_chunk", "chunk_id": number, "data": "A" * size})


async def send_audio(desktop: RawDevice, mobile: RawDevice) -> int:
    """Send all chunks to a device that does not read; the most that waited for it at a time, in bytes."""
    assert await desktop.pending() == []
    most, before = 0, desktop.connection.received
    for number in range(1, CHUNKS + 1):
        await desktop.raw.send_bytes(chunk(number))
        await until(partial(lambda count: desktop.connection.received >= count, before + number))
        most = max(most, mobile.connection.send_queue.size)
    return most


async def test_audio_for_a_receiver_that_does_not_read_is_dropped_and_said_and_takes_no_memory(
    fast: Site,
) -> None:
    Clock(fast)
    desktop, mobile = await raw_pair(fast)
    await desktop.raw.send_bytes(said(1))
    # The sender is not held up: audio is live.
    most = await send_audio(desktop, mobile)
    await desktop.raw.send_bytes(said(2))
    assert LIMITS.queue_pause - 16 * KIB < most < LIMITS.queue_pause + 64 * KIB
    heard: list[int] = []
    lost: list[int] = []
    numbers: list[int] = []
    while len(numbers) < 2:
        message = await mobile.message()
        match message["type"]:
            case "audio_chunk":
                assert message["chunk_id"] == message["audio_seq"]
                heard.append(message["audio_seq"])
            case "audio_gap":
                assert message["reason"] == "slow_consumer"
                lost.extend(range(message["from"], message["to"] + 1))
            case "channel_message":
                numbers.append(message["payload"]["n"])
    assert numbers == [1, 2]
    assert heard == sorted(heard)
    assert len(lost) > CHUNKS // 3
    assert sorted(heard + lost) == list(range(1, CHUNKS + 1))
    assert fast.node.hub.context.counters.audio_dropped == len(lost)
    # It goes on as if nothing had been.
    await desktop.raw.send_bytes(chunk(CHUNKS + 1) + said(3))
    assert [(await mobile.message())["type"] for _ in range(2)] == ["audio_chunk", "channel_message"]
    assert await desktop.pending() == []


async def test_a_receiver_that_stays_deaf_to_audio_is_closed_4430_and_the_sender_told_and_kept(
    fast: Site,
) -> None:
    clock = Clock(fast)
    desktop, mobile = await raw_pair(fast)
    await send_audio(desktop, mobile)
    clock.put_forward(LIMITS.queue_age - 1)
    assert not mobile.connection.closing
    clock.put_forward(1.1)
    assert mobile.connection.close_code == 4430
    assert (await desktop.message())["type"] == "peer_slow"
    assert codes(await mobile.raw.rest())[-2:] == ["SLOW_CONSUMER", 4430]
    assert (await desktop.message())["type"] == "mobile_disconnected"
    await desktop.raw.send_bytes(chunk(1) + said(1))
    assert await desktop.pending() == []
    [reported] = await fast.events("limit.slow_consumer")
    assert reported["buffered"] < LIMITS.queue_pause + 64 * KIB


async def test_a_slow_reader_throttles_the_sender_and_loses_nothing(fast: Site) -> None:
    clock = Clock(fast)
    desktop, mobile = await raw_pair(fast)
    count, size, rate = 300, 8 * KIB, 128 * KIB  # a second
    before, most = desktop.connection.received, 0
    sending = asyncio.ensure_future(
        desktop.raw.send_bytes(b"".join(said(n, pad="x" * size) for n in range(count)))
    )
    heard: list[int] = []
    while len(heard) < count:
        # So slow that what is sent waits for it.
        await until(
            lambda: (
                mobile.connection.send_queue.size >= LIMITS.queue_pause
                or desktop.connection.received - before == count
            )
        )
        most = max(most, mobile.connection.send_queue.size)
        heard += await mobile.numbers(min(rate // size, count - len(heard)))
        clock.put_forward(1)
        # No more is taken from the sender than waits for the reader, here and in the kernel.
        waiting = desktop.connection.received - before - len(heard)
        assert waiting * size < LIMITS.queue_pause + 1024 * KIB
    assert heard == list(range(count))
    assert LIMITS.queue_pause <= most < LIMITS.queue_pause + 128 * KIB
    await sending
    assert await desktop.pending() == []


async def test_a_batch_that_the_kernel_takes_in_part_arrives_whole_and_in_order(fast: Site) -> None:
    Clock(fast)
    desktop, mobile = await raw_pair(fast)
    # More than the kernel has room for, in messages that are read many at a time.
    count, size = 400, 2000
    sending = asyncio.ensure_future(
        desktop.raw.send_bytes(b"".join(said(n, pad="x" * size) for n in range(count)))
    )
    await until(lambda: mobile.connection.send_queue.size > 0)
    assert await mobile.numbers(count) == list(range(count))
    await sending
    assert mobile.connection.send_queue.size == 0
    metrics = (await fast.get("/metrics")).body.decode()
    [waits] = re.findall(r"^pairing_queue_wait_seconds_count (\S+)$", metrics, re.MULTILINE)
    assert float(waits) > 0
    await desktop.raw.send_bytes(said(1))
    assert await mobile.numbers(1) == [1]


async def test_of_the_settings_that_wait_only_the_newest_are_sent(fast: Site) -> None:
    Clock(fast)
    desktop, mobile = await raw_pair(fast)
    count = 0
    while not mobile.connection.send_queue.size:
        await desktop.raw.send_bytes(said(count, pad="x" * 8000))
        count += 1
        await desktop.pending()
    for number in range(500):
        await desktop.raw.send_bytes(text({"type": "settings_sync", "settings": {"gain": number}}))
    await desktop.pending()
    assert mobile.connection.send_queue.size < LIMITS.queue_pause
    assert await mobile.numbers(count) == list(range(count))
    [document] = await mobile.pending()
    assert (document["settings"], document["rev"]) == ({"gain": 499}, 500)

"""Several frames in one TCP segment: all are served in order, and the end of one connection is its own."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import StartNode
from tests.devices import Site
from tests.websocket.raw import CLOSE, PING, TEXT, frame
from tests.websocket.raw_pair import RawDevice, codes, raw_pair, said, text

pytestmark = pytest.mark.one_node

FLOOD = 2000


@pytest.fixture
def busy(start_node: StartNode) -> Site:
    """A node that takes as many messages as come."""
    return start_node(message_rate=1_000_000, message_burst=1_000_000, frame_rate=1_000_000)


async def test_the_messages_of_one_segment_arrive_in_order_and_are_acknowledged_in_order(site: Site) -> None:
    desktop, mobile = await raw_pair(site)
    await desktop.raw.send_bytes(
        b"".join(text({"type": "channel_message", "payload": {"n": n}, "id": n}) for n in range(100))
    )
    assert await mobile.numbers(100) == list(range(100))
    assert [ack["id"] for ack in await desktop.messages(100)] == list(range(100))


async def test_half_a_frame_holds_up_nothing_of_what_came_before_it(site: Site) -> None:
    desktop, mobile = await raw_pair(site)
    last = said(5)
    await desktop.raw.send_bytes(b"".join(said(n) for n in range(5)) + last[:10])
    # No more data comes.
    assert await mobile.numbers(5) == [0, 1, 2, 3, 4]
    await desktop.raw.send_bytes(last[10:])
    assert await mobile.numbers(1) == [5]


async def test_a_refused_frame_in_the_middle_of_a_segment_delivers_what_was_before_and_nothing_behind(
    site: Site,
) -> None:
    for refused, code in (
        (frame(3, b"reserved opcode"), 1002),
        (frame(TEXT | 0x40, b"{}"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"x" * (1024 * 1024 + 1))[:14], 1009),
    ):
        desktop, mobile = await raw_pair(site)
        good = b"".join(said(n) for n in range(5))
        await desktop.raw.send_bytes(good + refused + said(6) + frame(PING, b"late"))
        assert await mobile.numbers(5) == [0, 1, 2, 3, 4]
        assert codes(await desktop.raw.rest()) == [code]
        assert (await mobile.message())["type"] == "desktop_disconnected"
        assert await mobile.pending() == []
        for device in (desktop, mobile):
            device.raw.close()


async def test_a_close_frame_behind_messages_is_answered_once_they_are_served(site: Site) -> None:
    desktop, mobile = await raw_pair(site)
    messages = [{"type": "channel_message", "payload": {"n": n}, "id": n} for n in range(5)]
    end = frame(CLOSE, b"\x03\xe9going")
    await desktop.raw.send_bytes(b"".join(map(text, messages)) + end + said(6) + frame(PING))
    assert codes(await desktop.raw.rest()) == ["ack"] * 5 + [1001]
    assert await mobile.numbers(5) == [0, 1, 2, 3, 4]
    assert (await mobile.message())["type"] == "desktop_disconnected"
    assert await mobile.pending() == []


async def test_after_the_servers_close_the_rest_of_the_segment_is_not_served(site: Site) -> None:
    desktop, mobile = await raw_pair(site)
    connection = desktop.connection
    before = connection.received
    # Unpairing needs the database: what is behind it waits, and the server closes meanwhile.
    await desktop.raw.send_bytes(said(1) + text({"type": "unpair"}) + b"".join(said(n) for n in range(2, 30)))
    assert codes(await desktop.raw.rest())[-1] == 4410
    assert connection.received == before + 2
    assert codes(await mobile.raw.rest()) == [
        "channel_message",
        "desktop_disconnected",
        "channel_closed",
        4410,
    ]


async def test_messages_both_ways_at_once_keep_their_order(busy: Site) -> None:
    pair = await raw_pair(busy)

    async def flood(device: RawDevice) -> None:
        for start in range(0, FLOOD, 100):
            await device.raw.send_bytes(b"".join(said(n) for n in range(start, start + 100)))

    heard = [asyncio.ensure_future(device.numbers(FLOOD)) for device in pair]
    await asyncio.gather(*(flood(device) for device in pair))
    assert await asyncio.gather(*heard) == [list(range(FLOOD))] * 2

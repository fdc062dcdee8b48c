"""Limits over real sockets: a client over a limit gets an error, one that goes on is closed, and so is one that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from pairing_server.relay.connection import Connection
from pairing_server.relay.members import OTHER
from pairing_server.security.addresses import parse_networks
from tests.conftest import StartNode
from tests.devices import Account, Device, Site
from tests.web.clock import Clock
from tests.websocket.raw import CLOSE, PING, PONG, TEXT, Frame, RawSocket, frame


@pytest.fixture
def narrow(start_node: StartNode) -> Site:
    """A node with room for two connections of a user, and for three of an address."""
    return start_node(
        connections_per_user=2, connections_per_address=3, trusted_proxies=parse_networks(["127.0.0.1"])
    )


async def raw_device(site: Site, account: Account, device_type: str = "desktop") -> RawSocket:
    """A raw connection that has been greeted."""
    raw = RawSocket()
    await raw.open(site, f"?token={await site.ws_token(account, device_type)}")
    assert b'"connected"' in (await raw.read()).payload
    return raw


async def take_over(site: Site, account: Account, device: Device) -> RawSocket:
    """A raw connection in the place of a joined device."""
    raw = await raw_device(site, account, device.device_type)
    join = {"type": "join_channel", "channel": device.channel, "session_id": device.session_id}
    await raw.send(TEXT, json.dumps(join).encode())
    assert b'"channel_joined"' in (await raw.read()).payload
    assert await device.socket.closed() == 4409
    return raw


def codes(frames: list[Frame]) -> list[str]:
    texts = [json.loads(found.payload) for found in frames if found.opcode == TEXT]
    return [text.get("code", text["type"]) for text in texts]


async def test_a_message_over_its_size_is_refused_and_does_not_reach_the_peer(site: Site) -> None:
    desktop, mobile = await site.pair()
    for message, limit in (
        ({"type": "settings_sync", "settings": {"a": "x" * 17_000}}, 16_384),
        ({"type": "ping", "pad": "x" * 17_000}, 16_384),
        ({"type": "channel_message", "payload": {"a": "x" * 66_000}}, 65_536),
        ({"type": "audio_chunk", "data": "x" * 530_000}, 524_288),
    ):
        desktop.socket.send(message)
        error = await desktop.socket.error()
        assert error["code"] == "PAYLOAD_TOO_LARGE"
        assert error["details"] == {"limit": limit, "size": len(json.dumps(message))}
    assert len(await site.events("msg.too_large")) == 4
    assert await mobile.socket.pending() == []


async def test_a_user_and_an_address_have_only_so_many_connections(narrow: Site) -> None:
    site = narrow
    alice, bob, carol = [await site.account() for _ in range(3)]
    tokens = {account.username: await site.ws_token(account, "desktop") for account in (alice, bob, carol)}
    here, there = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    first = await site.open(tokens[alice.username], headers=here)
    await first.expect("connected")
    for token in (tokens[alice.username], tokens[bob.username]):
        await (await site.open(token, headers=here)).expect("connected")
    for account, headers, limit in (
        (alice, there, "connections_per_user"),
        (carol, here, "connections_per_address"),
    ):
        refused = await site.open(tokens[account.username], headers=headers)
        error = await refused.error()
        assert (error["code"], error["details"]["limit"]) == ("RATE_LIMITED", limit)
        assert await refused.closed() == 4429
    await (await site.open(tokens[carol.username], headers=there)).expect("connected")
    first.close()
    await first.closed()
    await (await site.open(tokens[alice.username], headers=there)).expect("connected")
    assert [event["reason"] for event in await site.events("ws.rejected")] == [
        "connections_per_user",
        "connections_per_address",
    ]


async def test_ten_bad_messages_in_a_row_close_4400_and_nothing_after_them_is_taken(
    site: Site,
) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    raw = await take_over(site, account, mobile)
    await desktop.socket.expect("client_joined")
    late = frame(TEXT, b'{"type":"channel_message","payload":{"late":1}}')
    await raw.send_bytes(frame(TEXT, b"{") * 10 + late + frame(TEXT, b'{"type":"ping"}'))
    frames = await raw.rest()
    raw.close()
    assert codes(frames) == ["INVALID_MESSAGE"] * 10
    assert frames[-1].close_code == 4400
    await desktop.socket.expect("mobile_disconnected")
    assert await desktop.socket.pending() == []
    assert len(await site.events("msg.invalid")) == 10
    ended = (await site.events("ws.disconnected"))[-1]
    assert (ended["close_code"], ended["by"]) == (4400, "server")


FLOODS = (
    ("pings", frame(PING, b"beat") * 30),
    ("frames", frame(PONG) * 1000),
    ("fragments", frame(TEXT, b"{", final=False) + frame(0, b" ", final=False) * 100),
    ("fragments", frame(TEXT, b"", final=False) + frame(0, b"", final=False) * 100),
)


async def test_a_flood_of_frames_closes_4429(site: Site) -> None:
    Clock(site)
    account = await site.account()
    for _, flood in FLOODS:
        raw = await raw_device(site, account)
        with contextlib.suppress(ConnectionError):
            await raw.send_bytes(flood)
        frames = await raw.rest()
        raw.close()
        assert frames[-1].close_code == 4429
        assert len([f for f in frames if f.opcode == PONG]) <= 20
    abuses = await site.events("limit.protocol_abuse")
    assert [(abuse["kind"], abuse["outcome"]) for abuse in abuses] == [(kind, "denied") for kind, _ in FLOODS]
    assert {end["close_code"] for end in await site.events("ws.disconnected")} == {4429}


async def test_ordinary_pings_and_fragments_are_no_flood(site: Site) -> None:
    raw = await raw_device(site, await site.account())
    await raw.send_bytes(frame(PING, b"beat") * 20)
    parts = b'{"type":"ping","sequence":5}'
    await raw.send_bytes(frame(TEXT, parts[:1], final=False))
    await raw.send_bytes(b"".join(frame(0, parts[i : i + 1], final=False) for i in range(1, len(parts))))
    await raw.send(0)
    found = await raw.read()
    while found.opcode == PONG:
        found = await raw.read()
    assert json.loads(found.payload) == {"type": "pong", "sequence": 5}
    await raw.send(CLOSE, b"\x03\xe8")
    assert [f.close_code for f in await raw.rest()] == [1000]
    raw.close()


async def test_a_frame_over_the_hard_limit_closes_1009(site: Site) -> None:
    whole, parts = [await raw_device(site, await site.account()) for _ in range(2)]
    await whole.send_bytes(frame(TEXT, b"x" * (1024 * 1024 + 1))[:14])
    with contextlib.suppress(ConnectionError):
        await parts.send_bytes(frame(TEXT, b"x" * 700_000, final=False) + frame(0, b"x" * 700_000))
    for raw in (whole, parts):
        assert (await raw.rest())[-1].close_code == 1009
        raw.close()


async def congestion(site: Site, sender: Device, receiver: RawSocket) -> int:
    """Send until the sender is read no more, since the receiver does not read. How much was taken."""
    connection = next(s for s in site.node.hub.connections.values() if s.session_id == sender.session_id)
    channel = connection.channel
    assert channel is not None
    peer = channel.members[OTHER[sender.device_type]]
    assert isinstance(peer, Connection)
    before = connection.received
    for number in range(60):
        sender.socket.send({"type": "channel_message", "payload": {"n": number, "pad": "x" * 60_000}})
    while not peer.send_queue.congested:
        await site.get("/healthz")
    taken = connection.received
    # The node does other work meanwhile, and still takes nothing from the sender.
    assert (await site.get("/healthz")).status == 200
    assert connection.received == taken < before + 60
    return taken - before


async def test_a_sender_is_read_no_more_while_its_peer_does_not_read_and_nothing_is_lost(
    site: Site,
) -> None:
    Clock(site)
    account = await site.account()
    desktop, mobile = await site.pair(account)
    raw = await take_over(site, account, mobile)
    await desktop.socket.expect("client_joined")
    await congestion(site, desktop, raw)
    numbers: list[int] = []
    while len(numbers) < 60:
        numbers.append(json.loads((await raw.read()).payload)["payload"]["n"])
    raw.close()
    assert numbers == list(range(60))
    await desktop.socket.expect("mobile_disconnected")


async def test_a_peer_that_does_not_read_is_closed_4430_and_the_sender_told_and_kept(
    site: Site,
) -> None:
    clock = Clock(site)
    account = await site.account()
    desktop, mobile = await site.pair(account)
    raw = await take_over(site, account, mobile)
    await desktop.socket.expect("client_joined")
    await congestion(site, desktop, raw)
    clock.put_forward(5.1)
    slow = await desktop.socket.expect("peer_slow")
    assert (slow["channel"], slow["device_type"]) == (desktop.channel, "mobile")
    frames = await raw.rest()
    raw.close()
    assert codes(frames)[-1] == "SLOW_CONSUMER"
    assert frames[-1].close_code == 4430
    await desktop.socket.expect("mobile_disconnected")
    assert await desktop.socket.pending() == []
    [reported] = await site.events("limit.slow_consumer")
    assert reported["age_ms"] >= 5000
    again = await site.join(account, "mobile", mobile.channel, mobile.session_id)
    await desktop.socket.pending()
    desktop.socket.send({"type": "channel_message", "payload": {"n": "after"}})
    assert (await again.socket.expect("channel_message"))["payload"] == {"n": "after"}


async def test_a_restart_closes_every_connection_1012_but_drops_the_original_clients(site: Site) -> None:
    """Those connect again only after an unclean close."""
    account = await site.account()
    desktop, mobile = await site.pair(account)
    desktop.socket.send({"type": "channel_message", "payload": {}, "id": 1})
    await desktop.socket.expect("ack")
    token = await site.ws_token(account, "desktop")
    others = [await site.open(token, via) for via in ("header", "subprotocol")]
    for socket in others:
        await socket.expect("connected")
    closing = [asyncio.ensure_future(socket.closed()) for socket in (desktop.socket, mobile.socket, *others)]
    await site.node.stop()
    assert await asyncio.gather(*closing) == [1012, None, 1012, 1012]

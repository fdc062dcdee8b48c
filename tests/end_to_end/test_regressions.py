"""What earlier servers of this kind got wrong, each fault with a test of its own."""

from __future__ import annotations

import asyncio

import pytest
from tornado.httpclient import HTTPClientError

from pairing_server.security.limits import Rate
from pairing_server.security.origins import Origins
from tests.conftest import StartNode
from tests.devices import Site

DESKTOP, MOBILE = "desktop-session-1", "mobile-session-1"


def join(channel: str, session_id: str) -> dict[str, str]:
    return {"type": "join_channel", "channel": channel, "session_id": session_id}


@pytest.fixture
def two_tries(start_node: StartNode) -> Site:
    return start_node(handshake_failures=Rate(2, 60))


@pytest.fixture
def one_origin(start_node: StartNode) -> Site:
    return start_node(allowed_origins=Origins.parse(["https://app.example.com"]))


async def test_a_socket_without_a_valid_token_does_nothing_but_close(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, DESKTOP)
    for token in (None, "", "null", "undefined", account.token):
        socket = await site.open(token)
        socket.send(join(f"pair-{code}", DESKTOP))
        assert (await socket.error())["code"] == "INVALID_TOKEN"
        assert await socket.closed() == 4401
    assert site.node.hub.channels == {}


async def test_a_channel_is_not_joined_by_naming_it(site: Site) -> None:
    desktop, mobile = await site.pair()
    for device_type in ("desktop", "mobile"):
        stranger = await site.connect(await site.account(), device_type)
        stranger.send(join(desktop.channel, f"stranger-{device_type}"))
        assert (await stranger.error())["code"] == "CHANNEL_FULL"
        desktop.socket.send({"type": "channel_message", "payload": {"private": True}})
        await mobile.socket.expect("intruder_refused")
        await mobile.socket.expect("channel_message")
        assert await stranger.pending() == []


async def test_nobody_publishes_to_a_channel_by_naming_it(site: Site) -> None:
    desktop, mobile = await site.pair()
    outsider = await site.connect(await site.account(), "mobile")
    other, _ = await site.pair()
    for socket, code in ((outsider, "NOT_IN_CHANNEL"), (other.socket, "INVALID_CHANNEL")):
        for message in (
            {"type": "channel_message", "payload": {"forged": True}},
            {"type": "settings_sync", "settings": {"forged": True}},
            {"type": "audio_chunk", "data": "AAAA"},
            {"type": "leave_channel"},
            {"type": "unpair"},
        ):
            socket.send({**message, "channelId": desktop.channel})
            assert (await socket.error())["code"] == code
    assert await desktop.socket.pending() == await mobile.socket.pending() == []
    assert [event["reason"] for event in await site.events("channel.denied")] == ["foreign"] * 5


async def test_a_mobile_token_does_not_enter_by_an_invented_code(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, DESKTOP)
    desktop = await site.join(account, "desktop", f"pair-{code}", DESKTOP)
    invented = f"pair-{(int(code) + 1) % 10**6:06d}"
    phone = await site.connect(account, "mobile")
    for channel in (invented, desktop.channel):  # the second waits, but this phone has not redeemed it
        phone.send(join(channel, MOBILE))
        assert (await phone.error())["code"] == "INVALID_CHANNEL"
    assert await desktop.socket.pending() == []
    assert len(site.node.hub.channels) == 1


async def test_a_code_is_unique_works_once_and_is_consumed(site: Site) -> None:
    account = await site.account()
    codes = await asyncio.gather(*(site.code(account, f"desktop-{number:03}") for number in range(8)))
    assert len(set(codes)) == 8
    answers = await asyncio.gather(*(site.redeem(account, codes[0], f"mobile-{n:03}") for n in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 404, 404, 404]
    assert (await site.redeem(account, codes[0], "mobile-late")).error == "INVALID_CODE"
    assert (await site.redeem(await site.account(), codes[1], "mobile-other")).error == "INVALID_CODE"


async def test_a_third_device_gets_channel_full(site: Site) -> None:
    account = await site.account()
    desktop, _ = await site.pair(account)
    third = await site.connect(account, "mobile")
    third.send(join(desktop.channel, "mobile-session-3"))
    error = await third.error()
    assert (error["code"], error["details"]) == (
        "CHANNEL_FULL",
        {"channel": desktop.channel, "max_devices": 2, "current_devices": 2},
    )


@pytest.mark.parametrize("order", [("desktop", "mobile"), ("mobile", "desktop")])
async def test_pairing_success_comes_in_both_orders_and_names_the_channel(
    site: Site, order: tuple[str, str]
) -> None:
    account = await site.account()
    code = await site.code(account, DESKTOP)
    await site.redeem(account, code, MOBILE)
    sockets = []
    for device_type in order:
        socket = await site.connect(account, device_type)
        socket.send(join(f"pair-{code}", DESKTOP if device_type == "desktop" else MOBILE))
        await socket.expect("channel_joined")
        sockets.append(socket)
    await sockets[0].expect("client_joined")
    for socket in sockets:
        success = await socket.expect("pairing_success")
        assert (success["code"], success["channelId"], success["channel"]) == (
            code,
            f"pair-{code}",
            f"pair-{code}",
        )
        assert await socket.pending() == []


async def test_identify_after_join_keeps_the_join(site: Site) -> None:
    desktop, mobile = await site.pair()
    mobile.socket.send({"type": "identify", "device_type": "mobile", "session_id": mobile.session_id})
    await mobile.socket.expect("identified")
    mobile.socket.send({"type": "channel_message", "payload": {"still": "joined"}})
    assert (await desktop.socket.expect("channel_message"))["payload"] == {"still": "joined"}


async def test_a_strangers_x_forwarded_for_is_not_believed(two_tries: Site) -> None:
    for number in range(2):
        socket = await two_tries.open("x", headers={"X-Forwarded-For": f"192.0.2.{number}"})
        assert await socket.closed() == 4401
    for headers in (
        {"X-Forwarded-For": "192.0.2.9"},
        {"X-Real-Ip": "192.0.2.9"},
        {"Forwarded": "for=192.0.2.9"},
    ):
        with pytest.raises(HTTPClientError) as answer:
            await two_tries.open("x", headers=headers)
        assert answer.value.code == 429


async def test_an_origin_that_only_begins_like_an_allowed_one_is_refused(one_origin: Site) -> None:
    token = await one_origin.ws_token(await one_origin.account(), "desktop")
    await (await one_origin.open(token, headers={"Origin": "https://app.example.com"})).expect("connected")
    for end in (".evil.test", "x", ":8443", "@evil.test", "/"):
        with pytest.raises(HTTPClientError) as answer:
            await one_origin.open(token, headers={"Origin": f"https://app.example.com{end}"})
        assert answer.value.code == 403, end


async def test_a_pong_has_the_sequence_of_its_ping(site: Site) -> None:
    socket = await site.connect(await site.account(), "desktop")
    for sequence in (1, 2, 2**53):
        socket.send({"type": "ping", "sequence": sequence})
        assert await socket.receive() == {"type": "pong", "sequence": sequence}


async def test_a_message_of_an_unknown_type_is_not_relayed(site: Site) -> None:
    desktop, mobile = await site.pair()
    for type_ in ("custom", "pairing_success", "mobile_disconnected", "channel_closed", "error"):
        mobile.socket.send({"type": type_, "channel": mobile.channel, "force_disconnect": True})
        assert (await mobile.socket.error())["code"] == "UNKNOWN_TYPE"
    assert await desktop.socket.pending() == []

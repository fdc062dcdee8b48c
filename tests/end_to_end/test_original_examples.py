"""Every example of the original specification, byte for byte, against a running node over real sockets.

Only the channel's name, the access token and `desktop|mobile` are put into an example, by replacing bytes: the
rest is sent as it stands in docs/protocol.md, and what the server sends holds all that an example promises.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartNode
from tests.devices import Account, Answer, Device, Site, Socket
from tests.protocol import EXAMPLES, code, table

# The session ids that the examples name.
DESKTOP, MOBILE, SOMEBODY = "desktop-session-123", "mobile-session-456", "your-session-id"

# What only stands for something real: everything else in an answer is the same, or of the same form.
STANDS_FOR: dict[str, str] = {
    "ws-jwt-token-here": r"[\w-]+\.[\w-]+\.[\w-]+",
    "2025-09-14T22:45:00Z": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z",
    "123456": r"\d{6}",
    "pair-123456": r"pair-\d{6}",
}


def of_kind(kind: str) -> list[str]:
    """The names of the original examples of that kind."""
    return [code(row["example"]) for row in table("original-examples") if row["what it is"] == kind]


def text(name: str, channel: str = "", device_type: str = "") -> str:
    """The example's bytes, with the real channel and the device's word."""
    found = EXAMPLES[name].text
    if channel:
        found = found.replace("pair-123456", channel)
    return found.replace("desktop|mobile", device_type) if device_type else found


def check(given: dict[str, Any], name: str) -> None:
    """All that the example has is there; its values are the example's, or of the form that they stand for."""
    for key, promised in EXAMPLES[name].value.items():
        if isinstance(promised, str) and promised in STANDS_FOR:
            assert re.fullmatch(STANDS_FOR[promised], given[key]), (name, key, given)
        else:
            assert given[key] == promised, (name, key, given)
            assert type(given[key]) is type(promised)


async def pair(site: Site, desktop: str = DESKTOP, mobile: str = MOBILE) -> tuple[Device, Device]:
    """Two devices with the session ids of the examples, with nothing left to read."""
    account = await site.account()
    made = await site.code(account, desktop)
    assert (await site.redeem(account, made, mobile)).status == 200
    first = await site.join(account, "desktop", f"pair-{made}", desktop)
    second = await site.join(account, "mobile", f"pair-{made}", mobile)
    await first.socket.pending()
    return first, second


async def raw(socket: Socket) -> str:
    """The next message as it came over the wire."""
    found = await socket.connection.read_message()
    assert isinstance(found, str)
    return found


# HTTP.


async def send(
    site: Site, name: str, account: Account | None, *, authorize: bool = False, typed: str = "123456"
) -> Answer:
    """Send a request of the document: its path, its headers and the bytes of its body.

    `authorize`: with an Authorization header even if the example has none. `typed`: the real code.
    """
    example = EXAMPLES[name].request
    token = account.token if account else ""
    headers = {key: value.replace("<your-jwt-token>", token) for key, value in example.headers.items()}
    if authorize:
        headers["Authorization"] = f"Bearer {token}"
    body = example.body.replace(b"123456", typed.encode())
    return await site.call(example.method, example.path, body, headers=headers)


@pytest.mark.parametrize("name", ["http-ws-token-request", "http-ws-token-mobile-request"])
async def test_the_examples_of_ws_tokens_get_a_token_that_opens_the_websocket(site: Site, name: str) -> None:
    answer = await send(site, name, await site.account())
    assert answer.status == 200
    check(answer.body, "http-ws-token-answer")
    socket = await site.open(answer.body["token"])
    await socket.expect("connected")
    device_type = "mobile" if "mobile" in name else "desktop"
    socket.send(text(f"identify-{device_type}"))
    assert (await socket.expect("identified"))["device_type"] == device_type


async def pair_by_the_examples(site: Site, *, authorize: bool) -> None:
    account = await site.account()
    made = await send(site, "http-generate-pair-code-request", account, authorize=authorize)
    assert made.status == 200
    check(made.body, "http-generate-pair-code-answer")
    assert made.body["channel_id"] == f"pair-{made.body['code']}"
    redeemed = await send(
        site, "http-pair-device-request", account, authorize=authorize, typed=made.body["code"]
    )
    assert redeemed.status == 200
    check(redeemed.body, "http-pair-device-answer")
    assert redeemed.body["channel_id"] == made.body["channel_id"]
    await site.join(account, "desktop", made.body["channel_id"], "desktop-session-unique-id")
    mobile = await site.join(account, "mobile", made.body["channel_id"], "mobile-session-unique-id")
    mobile.socket.send({"type": "channel_message", "payload": {}, "id": 1})
    await mobile.socket.expect("ack")


async def test_the_examples_of_pairing_work_with_an_access_token(site: Site) -> None:
    await pair_by_the_examples(site, authorize=True)


@pytest.fixture
def guest_site(start_node: StartNode) -> Site:
    return start_node(guest_pairing=True)


async def test_the_examples_of_pairing_work_as_they_stand_where_guests_may_pair(guest_site: Site) -> None:
    await pair_by_the_examples(guest_site, authorize=False)


async def test_the_authorized_example_makes_a_code_too(site: Site) -> None:
    made = await send(site, "http-generate-pair-code-request-authorized", await site.account())
    assert made.status == 200
    check(made.body, "http-generate-pair-code-answer")


# Messages from a client.


@pytest.mark.parametrize("device_type", ["desktop", "mobile"])
async def test_identify_as_it_stands_is_answered(site: Site, device_type: str) -> None:
    socket = await site.connect(await site.account(), device_type)
    socket.send(text(f"identify-{device_type}"))
    session_id = {"desktop": DESKTOP, "mobile": MOBILE}[device_type]
    assert await socket.receive() == {
        "type": "identified",
        "device_type": device_type,
        "session_id": session_id,
    }


@pytest.mark.parametrize("device_type", ["desktop", "mobile"])
async def test_join_channel_as_it_stands_takes_the_seat_of_either_device(
    site: Site, device_type: str
) -> None:
    sessions = {"desktop": DESKTOP, "mobile": MOBILE, device_type: SOMEBODY}
    account = await site.account()
    made = await site.code(account, sessions["desktop"])
    await site.redeem(account, made, sessions["mobile"])
    other = "mobile" if device_type == "desktop" else "desktop"
    peer = await site.join(account, other, f"pair-{made}", sessions[other])
    socket = await site.connect(account, device_type)
    socket.send(text("join-channel", f"pair-{made}", device_type))
    joined = await socket.expect("channel_joined")
    assert joined["devices"] == ["desktop", "mobile"]
    assert (await peer.socket.expect("client_joined"))["client_id"] == SOMEBODY
    await peer.socket.expect("pairing_success")


async def test_join_channel_with_the_two_words_unreplaced_is_refused_and_the_socket_stays(site: Site) -> None:
    socket = await site.connect(await site.account(), "desktop")
    socket.send(text("join-channel"))
    refused = await socket.error()
    assert (refused["code"], refused["details"]) == ("VALIDATION_ERROR", {"field": "device_type"})
    assert await socket.pending() == []


@pytest.mark.parametrize("sender", ["desktop", "mobile"])
async def test_channel_message_as_it_stands_reaches_the_peer_with_its_payload_to_the_byte(
    site: Site, sender: str
) -> None:
    desktop, mobile = await pair(site)
    source, peer = (desktop, mobile) if sender == "desktop" else (mobile, desktop)
    sent = text("channel-message", source.channel)
    source.socket.send(sent)
    received = await raw(peer.socket)
    assert sent[sent.index('"payload": ') + len('"payload": ') : -2] in received
    check(json.loads(received) | {"channelId": "pair-123456"}, "channel-message")
    assert json.loads(received)["channelId"] == source.channel
    assert await source.socket.pending() == []


@pytest.mark.parametrize("sender", ["desktop", "mobile"])
async def test_settings_sync_as_it_stands_reaches_the_peer_with_every_value_as_it_came(
    site: Site, sender: str
) -> None:
    desktop, mobile = await pair(site)
    source, peer = (desktop, mobile) if sender == "desktop" else (mobile, desktop)
    source.socket.send(text("settings-sync", source.channel))
    received = await raw(peer.socket)
    assert '"chunkDuration":3.0' in received
    settings = EXAMPLES["settings-sync"].value["settings"]
    assert json.loads(received)["settings"] == settings
    assert json.loads(received)["channelId"] == source.channel
    assert sorted(json.loads(received)["changed"]) == sorted(settings)
    assert await source.socket.pending() == []


@pytest.mark.parametrize("sender", ["desktop", "mobile"])
async def test_audio_chunk_as_it_stands_reaches_the_peer(site: Site, sender: str) -> None:
    desktop, mobile = await pair(site)
    source, peer = (desktop, mobile) if sender == "desktop" else (mobile, desktop)
    source.socket.send(text("audio-chunk"))
    received = await peer.socket.receive()
    check(received, "audio-chunk")
    assert received["channelId"] == source.channel
    assert await source.socket.pending() == []


async def test_ping_as_it_stands_is_answered_with_the_pong_of_the_document(site: Site) -> None:
    socket = await site.connect(await site.account(), "mobile")
    socket.send(text("ping"))
    assert await socket.receive() == EXAMPLES["server-pong"].value


async def test_pong_as_it_stands_is_taken_without_an_answer(site: Site) -> None:
    socket = await site.connect(await site.account(), "mobile")
    for _ in range(20):  # more than bad messages would survive
        socket.send(text("pong"))
    assert await socket.pending() == []


# Messages from the server.


async def test_the_members_get_client_joined_and_pairing_success_as_promised(site: Site) -> None:
    account = await site.account()
    made = await site.code(account, DESKTOP)
    await site.redeem(account, made, MOBILE)
    desktop = await site.join(account, "desktop", f"pair-{made}", DESKTOP)
    mobile = await site.connect(account, "mobile")
    mobile.send(text("identify-mobile"))
    mobile.send(text("join-channel", f"pair-{made}", "mobile").replace(SOMEBODY, MOBILE))
    check(await desktop.socket.expect("client_joined"), "server-client-joined")
    success = await desktop.socket.expect("pairing_success")
    check(success, "server-pairing-success")
    # What the original handler takes its channel from.
    assert (success["code"], success["channelId"]) == (made, f"pair-{made}")
    await mobile.expect("identified")
    await mobile.expect("channel_joined")
    check(await mobile.expect("pairing_success"), "server-pairing-success")


async def test_the_peer_gets_desktop_disconnected_as_promised(site: Site) -> None:
    desktop, mobile = await pair(site)
    desktop.socket.close()
    check(await mobile.socket.expect("desktop_disconnected"), "server-desktop-disconnected")


async def test_an_unknown_channel_is_answered_as_promised(site: Site) -> None:
    socket = await site.connect(await site.account(), "desktop")
    socket.send(text("join-channel", device_type="desktop"))  # pair-123456 itself: nobody has it
    check(await socket.error(), "server-error-invalid-channel")


async def test_a_third_device_is_answered_as_promised(site: Site) -> None:
    _, mobile = await pair(site)
    third = await site.connect(await site.account(), "mobile")
    third.send(text("join-channel", mobile.channel, "mobile"))
    refused = await third.error()
    assert refused["details"]["channel"] == mobile.channel
    refused["details"]["channel"] = "pair-123456"
    check(refused, "server-error-channel-full")
    await mobile.socket.expect("intruder_refused")


def test_every_original_example_is_tested_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    kinds = {row["what it is"] for row in table("original-examples")}
    assert kinds == {"a request", "an answer", "a message from a client", "a message from the server"}
    for name in (name for kind in kinds for name in of_kind(kind)):
        # The two of identify are made from the device's word.
        assert f'"{name}"' in source or name in ("identify-desktop", "identify-mobile"), name

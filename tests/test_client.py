"""The Python client against a running node: what it returns, what it raises, what it keeps for later."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from pairing_server.client import (
    Closed,
    Connection,
    DeviceType,
    NotAPairingServer,
    NotReachable,
    PairingClient,
    ServerError,
    TimedOut,
    TokenVia,
)
from tests.devices import Site

pytestmark = pytest.mark.one_node

PASSWORD = "correct horse battery"


@pytest.fixture
def clients(io_loop: IOLoop, site: Site) -> Iterator[tuple[PairingClient, PairingClient]]:
    """A desktop and a phone of one account, logged in."""
    account = io_loop.run_sync(site.account)
    with (
        PairingClient(site.url, "desktop", access_token=account.token) as desktop,
        PairingClient(site.url, "mobile", access_token=account.token) as phone,
    ):
        yield desktop, phone


@pytest.fixture
def pair(
    io_loop: IOLoop, clients: tuple[PairingClient, PairingClient]
) -> Iterator[tuple[Connection, Connection]]:
    """The two, paired and connected."""
    connections = io_loop.run_sync(lambda: paired(*clients))
    yield connections
    for connection in connections:
        io_loop.run_sync(connection.close)


async def paired(desktop: PairingClient, phone: PairingClient) -> tuple[Connection, Connection]:
    code = await desktop.generate_code()
    channel = await phone.redeem(code.code)
    at_desktop, at_phone = await desktop.connect(), await phone.connect()
    await at_desktop.join(channel)
    await at_phone.join(channel)
    for connection in (at_desktop, at_phone):
        await connection.expect("pairing_success")
    return at_desktop, at_phone


async def test_register_log_in_pair_list_and_unpair(site: Site) -> None:
    with PairingClient(site.url, "desktop") as desktop, PairingClient(site.url, "mobile") as phone:
        await desktop.healthz()
        await desktop.readyz()
        await desktop.register("ada", PASSWORD)
        await desktop.login("ada", PASSWORD)
        phone.access_token = desktop.access_token
        code = await desktop.generate_code()
        assert code.expires_in == 300
        assert await phone.redeem(code.code) == code.channel == f"pair-{code.code}"
        [pairing] = await phone.pairings()
        assert (pairing.state, pairing.desktop_session_id, pairing.mobile_session_id) == (
            "redeemed",
            desktop.session_id,
            phone.session_id,
        )
        await phone.unpair(pairing.id)
        assert await desktop.pairings() == []


async def test_a_failed_request_raises_what_the_server_said(
    clients: tuple[PairingClient, PairingClient],
) -> None:
    _, phone = clients
    with pytest.raises(ServerError) as raised:
        await phone.redeem("123")
    assert (raised.value.status, raised.value.code) == (422, "VALIDATION_ERROR")
    assert list(raised.value.details) == ["fields"]


@pytest.fixture
def strict_site(start_node: Callable[..., Site]) -> Site:
    """A node that lets one code of a user wait."""
    return start_node(codes_per_user=1, code_ttl=60)


async def test_retry_after_is_told(strict_site: Site) -> None:
    site = strict_site
    account = await site.account()
    with (
        PairingClient(site.url, "desktop", access_token=account.token) as first,
        PairingClient(site.url, "desktop", access_token=account.token) as second,
    ):
        await first.generate_code()
        with pytest.raises(ServerError) as raised:
            await second.generate_code()
    assert raised.value.code == "RATE_LIMITED"
    assert raised.value.retry_after == 60


async def test_a_code_is_not_in_its_repr(clients: tuple[PairingClient, PairingClient]) -> None:
    code = await clients[0].generate_code()
    assert code.code not in repr(code)


@pytest.mark.parametrize("via", ["header", "query", "subprotocol"])
async def test_the_ws_token_goes_each_way(
    clients: tuple[PairingClient, PairingClient], via: TokenVia
) -> None:
    async with await clients[0].connect(via=via) as connection:
        assert connection.client_id
        assert connection.subprotocol == ("pairing.v1" if via == "subprotocol" else None)
        identified = await connection.identify("tests")
        assert identified["session_id"] == clients[0].session_id


async def test_a_refused_ws_token_raises(clients: tuple[PairingClient, PairingClient]) -> None:
    with pytest.raises(ServerError) as raised:
        await clients[0].connect(token="nonsense")
    assert raised.value.code == "INVALID_TOKEN"


async def test_ungreeted_the_refusal_and_its_close_code_can_be_received(
    clients: tuple[PairingClient, PairingClient],
) -> None:
    connection = await clients[0].connect(token="nonsense", greeted=False)
    assert await connection.expect_close() == 4401
    assert (await connection.receive())["code"] == "INVALID_TOKEN"
    with pytest.raises(Closed) as raised:
        await connection.receive()
    assert (raised.value.code, connection.close_code) == (4401, 4401)


async def test_a_refused_upgrade_raises(clients: tuple[PairingClient, PairingClient]) -> None:
    with pytest.raises(ServerError) as raised:
        await clients[0].connect(headers={"Origin": "https://elsewhere.example"})
    assert (raised.value.status, raised.value.code) == (403, "ORIGIN_NOT_ALLOWED")


async def test_messages_settings_and_sound_arrive(pair: tuple[Connection, Connection]) -> None:
    desktop, phone = pair
    await phone.send({"a": 1}, id="m-1")
    await phone.sync_settings({"gain": 75})
    await phone.send_audio("c-1", "AAAA", "webm", 16000)
    assert (await phone.expect("ack"))["id"] == "m-1"
    assert (await desktop.expect("channel_message"))["payload"] == {"a": 1}
    assert (await desktop.expect("settings_sync"))["settings"] == {"gain": 75}
    sound = await desktop.expect("audio_chunk")
    assert (sound["data"], sound["format"], sound["sample_rate"]) == ("AAAA", "webm", 16000)


async def test_expect_keeps_the_others_in_order(pair: tuple[Connection, Connection]) -> None:
    desktop, phone = pair
    await desktop.ping()
    for number in (1, 2):
        await phone.send({"number": number})
    await phone.ping()
    assert (await desktop.ping())["sequence"] == 2
    assert [(await desktop.receive())["type"] for _ in range(3)] == [
        "client_joined",
        "channel_message",
        "channel_message",
    ]
    await phone.send({"number": 3})
    assert (await desktop.expect("channel_message"))["payload"] == {"number": 3}


async def test_an_error_in_place_of_an_answer_raises(pair: tuple[Connection, Connection]) -> None:
    _, phone = pair
    await phone.send_raw("no JSON")
    with pytest.raises(ServerError) as raised:
        await phone.ping()
    assert raised.value.code == "INVALID_MESSAGE"
    assert (await phone.expect("pong"))["sequence"] == 1


async def test_an_error_can_be_expected(pair: tuple[Connection, Connection]) -> None:
    await pair[1].send_raw(b"binary")
    assert (await pair[1].expect("error"))["code"] == "INVALID_MESSAGE"


async def test_what_does_not_come_times_out_and_says_what_came(pair: tuple[Connection, Connection]) -> None:
    desktop, phone = pair
    with pytest.raises(TimedOut, match="no pong came in time, but client_joined"):
        await desktop.expect("pong", within=0.05)
    await phone.send({"still": "there"})
    assert (await desktop.expect("channel_message"))["payload"] == {"still": "there"}


async def test_leaving_keeps_the_connection(pair: tuple[Connection, Connection]) -> None:
    desktop, phone = pair
    await phone.leave()
    assert (await desktop.expect("mobile_disconnected"))["force_disconnect"] is False
    assert phone.channel is None
    await phone.ping()


async def test_a_client_that_comes_back_has_missed_nothing(pair: tuple[Connection, Connection]) -> None:
    _, phone = pair
    await phone.send({"n": 1}, id=1)
    seq = (await phone.expect("ack"))["seq"]
    channel = str(phone.channel)
    await phone.leave()
    joined = await phone.join(channel)
    assert joined["recovered"] is False
    assert (await phone.join(channel, seq, joined["epoch"]))["recovered"] is True


async def test_a_fresh_token_prolongs_the_connection(
    clients: tuple[PairingClient, PairingClient], pair: tuple[Connection, Connection]
) -> None:
    refreshed = await pair[0].refresh(await clients[0].ws_token())
    # Less than an hour by as long as the answer took, at most as long as a test may take.
    assert refreshed["expires_in"] == pytest.approx(3600, abs=90)


async def test_unpairing_closes_both_with_its_code(pair: tuple[Connection, Connection]) -> None:
    desktop, phone = pair
    await desktop.unpair()
    assert (await phone.expect("desktop_disconnected"))["force_disconnect"] is True
    for connection in pair:
        assert await connection.expect_close() == 4410
        assert (await connection.expect("channel_closed"))["reason"] == "unpaired"
    with pytest.raises(Closed, match="4410"):
        await phone.send({"too": "late"})


async def test_sending_to_a_server_that_has_closed_tells_its_code(
    clients: tuple[PairingClient, PairingClient], pair: tuple[Connection, Connection]
) -> None:
    desktop, _ = pair
    again = await clients[0].connect()
    await again.join(str(desktop.channel))
    with pytest.raises(Closed) as raised:
        while True:
            await desktop.send({"still": "here"})
    assert raised.value.code == 4409
    await again.close()


@pytest.fixture
def patient_site(start_node: Callable[..., Site]) -> Site:
    """A node that lets a device send as fast as it can."""
    return start_node(message_rate=10_000_000, message_burst=10_000_000, frame_rate=10_000_000)


async def test_all_tasks_of_a_connection_are_told_that_it_is_closed(patient_site: Site) -> None:
    """Those that send as well as the one that receives; none takes from another what it waits for."""
    url, token = patient_site.url, (await patient_site.account()).token
    with (
        PairingClient(url, "desktop", access_token=token) as at_desk,
        PairingClient(url, "mobile", access_token=token) as in_hand,
    ):
        desktop, phone = await paired(at_desk, in_hand)

        async def send() -> None:
            while True:
                await phone.send({"still": "here"})

        async def receive() -> None:
            while True:
                await phone.receive()

        tasks = [asyncio.ensure_future(work()) for work in (receive, *[send] * 8)]
        await desktop.expect("channel_message")
        await desktop.unpair()
        told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(error), getattr(error, "code", None)) for error in told] == [(Closed, 4410)] * 9


async def test_two_who_wait_at_once_get_what_each_waits_for(pair: tuple[Connection, Connection]) -> None:
    desktop, phone = pair
    expected = asyncio.ensure_future(desktop.expect("channel_message"))
    await desktop.expect("client_joined")
    both = asyncio.gather(desktop.ping(), desktop.ping())
    await phone.send({"n": 1})
    assert [pong["type"] for pong in await both] == ["pong", "pong"]
    assert (await expected)["payload"] == {"n": 1}


async def test_a_dropped_connection_is_gone_for_the_peer(pair: tuple[Connection, Connection]) -> None:
    desktop, phone = pair
    phone.drop()
    assert (await desktop.expect("mobile_disconnected"))["reason"] == "Connection closed"
    with pytest.raises(Closed):
        await phone.receive()


async def test_nobody_listening_raises() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with PairingClient(f"http://127.0.0.1:{reserved.getsockname()[1]}", "desktop") as client:
            with pytest.raises(NotReachable, match="not reachable"):
                await client.healthz()
            with pytest.raises(NotReachable, match="not reachable"):
                await client.connect(token="x")


async def test_a_server_that_does_not_answer_raises_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            PairingClient(url, "desktop", timeout=0.05) as client,
            pytest.raises(NotReachable, match="Timeout"),
        ):
            await client.healthz()


class Elsewhere(RequestHandler):
    """Answers with the status and the kind of body that are in the URL."""

    def get(self, status: str, body: str) -> None:
        self.set_status(int(status))
        if status == "302":
            self.set_header("Location", "https://elsewhere.example/")
        self.write({"list": "[]", "text": "hello", "wrong": '{"status": "up"}'}[body])


class Babbler(WebSocketHandler):
    """Says what no pairing server says."""

    def open(self, *_: str, **__: str) -> None:
        self.write_message("hello")

    def check_origin(self, origin: str) -> bool:
        return True


@pytest.fixture
def stranger(io_loop: IOLoop) -> Iterator[str]:
    """The URL of a server that is not ours."""

    listener, port = bind_unused_port()
    server = HTTPServer(
        Application([(r"/babble/ws", Babbler), (r"/([0-9]+)/(\w+)/(?:healthz|ws)", Elsewhere)])
    )

    async def begin() -> None:
        server.add_socket(listener)

    io_loop.run_sync(begin)
    yield f"http://127.0.0.1:{port}"
    server.stop()
    io_loop.run_sync(server.close_all_connections)


@pytest.mark.parametrize("path", ["200/list", "200/text", "200/wrong", "302/text", "404/list", "502/text"])
async def test_a_server_of_another_kind_is_recognised(stranger: str, path: str) -> None:
    with PairingClient(f"{stranger}/{path}", "desktop") as client:
        with pytest.raises(NotAPairingServer):
            await client.healthz()
        with pytest.raises(NotAPairingServer):
            await client.connect(token="x")


async def test_a_redirection_is_told_and_not_followed(stranger: str) -> None:
    with (
        PairingClient(f"{stranger}/302/text", "desktop") as client,
        pytest.raises(NotAPairingServer, match="sends on to https://elsewhere"),
    ):
        await client.healthz()


async def test_messages_of_another_protocol_are_recognised(stranger: str) -> None:
    with PairingClient(f"{stranger}/babble", "desktop") as client, pytest.raises(NotAPairingServer):
        await client.connect(token="x")


@pytest.mark.parametrize(
    ("url", "ws_url"),
    [
        ("http://127.0.0.1:8089", "ws://127.0.0.1:8089/ws"),
        ("https://pairing.example/", "wss://pairing.example/ws"),
        ("https://example.com/pair/", "wss://example.com/pair/ws"),
        ("http://[::1]:8089", "ws://[::1]:8089/ws"),
    ],
)
async def test_the_websocket_is_where_http_is(url: str, ws_url: str) -> None:
    with PairingClient(url, "desktop") as client:
        assert client.ws_url == ws_url


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8089", "ws://127.0.0.1", "http://", "http://u:p@h", "http://h?x=1", "http://h:99999"],
)
async def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected|Port"):
        PairingClient(url, "desktop")


@pytest.mark.parametrize("device_type", ["desktop", "mobile"])
async def test_each_client_has_a_random_session_id(device_type: DeviceType) -> None:
    with PairingClient("http://h", device_type) as one, PairingClient("http://h", device_type) as other:
        assert one.session_id != other.session_id
        assert re.fullmatch(rf"{device_type}-[0-9a-f]{{24}}", one.session_id)

"""A client that is closed while it sends gets the last messages and the close frame, and no reset in their place."""

from __future__ import annotations

import json

import pytest

from pairing_server.web import lingering
from tests.devices import Site
from tests.websocket.raw import CLOSE, PING, TEXT, RawSocket, frame

pytestmark = pytest.mark.one_node


async def opened(site: Site) -> RawSocket:
    raw = RawSocket()
    token = await site.ws_token(await site.account(), "desktop")
    await raw.open(site, f"?token={token}")
    assert b'"connected"' in (await raw.read()).payload
    return raw


async def last_words(raw: RawSocket) -> tuple[set[str], int | None]:
    """The codes of the errors and the close code, up to the end of the connection. A reset fails."""
    errors, code = set(), None
    try:
        while True:
            found = await raw.read()
            if found.opcode == CLOSE:
                code = found.close_code
            elif found.opcode == TEXT:
                errors.add(json.loads(found.payload).get("code", ""))
    except EOFError:
        return errors - {""}, code


def text(size: int) -> bytes:
    return frame(TEXT, json.dumps({"type": "ping", "sequence": 1, "pad": "x" * size}).encode())


@pytest.mark.parametrize("size", [10, 1000])
async def test_six_hundred_messages_at_once_are_answered_rate_limited_and_4429(site: Site, size: int) -> None:
    raw = await opened(site)
    await raw.send_bytes(600 * text(size))
    assert await last_words(raw) == ({"RATE_LIMITED"}, 4429)


async def test_a_flood_of_pings_is_answered_before_its_end_is_read(site: Site) -> None:
    raw = await opened(site)
    await raw.send_bytes(350 * frame(PING) + 100 * text(2000))
    errors, code = await last_words(raw)
    assert (errors, code) == ({"RATE_LIMITED"}, 4429)


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(3), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (b"\x81\xff" + (2**21).to_bytes(8, "big") + bytes(4), 1009),
    ],
)
async def test_a_broken_frame_with_more_behind_it_is_answered_with_its_close_code(
    site: Site, broken: bytes, code: int
) -> None:
    raw = await opened(site)
    await raw.send_bytes(broken + 300 * text(1000))
    assert (await last_words(raw))[1] == code


async def test_a_refused_token_is_answered_although_the_client_sends_on(site: Site) -> None:
    raw = RawSocket()
    await raw.open(site, "?token=nonsense", behind=600 * text(100))
    assert await last_words(raw) == ({"INVALID_TOKEN"}, 4401)


async def test_ten_bad_messages_are_answered_although_more_come(site: Site) -> None:
    raw = await opened(site)
    await raw.send_bytes(500 * frame(TEXT, b"{"))
    assert await last_words(raw) == ({"INVALID_MESSAGE"}, 4400)


async def test_a_client_that_never_stops_is_reset_behind_the_bound(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "DROPPED_BYTES", 16 * 1024)
    raw = await opened(site)
    with pytest.raises(ConnectionError):
        while True:
            await raw.send_bytes(64 * text(4000))
    assert len(site.node.app.lingering) == 0

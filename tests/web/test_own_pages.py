"""A page of this server that was opened by a name which the server does not know: refused, with what its operator must set."""

from __future__ import annotations

import logging

import pytest
from tornado.httpclient import HTTPClientError

from tests.conftest import StartNode
from tests.devices import Site

LOGIN = "/api/auth/login"
HOST = "myhost.local:8089"
PAGE = f"http://{HOST}"


@pytest.fixture
def everywhere(start_node: StartNode) -> Site:
    return start_node(host="0.0.0.0", public_url="http://0.0.0.0:8089")


@pytest.mark.parametrize("origin", [PAGE, f"https://{HOST}", "http://MYHOST.local:8089"])
async def test_the_refusal_and_the_log_name_the_setting(
    everywhere: Site, caplog: pytest.LogCaptureFixture, origin: str
) -> None:
    for _ in range(3):
        answer = await everywhere.post(LOGIN, {}, Origin=origin, Host=HOST)
        assert (answer.status, answer.error) == (403, "ORIGIN_NOT_ALLOWED")
        assert f"PAIRING_PUBLIC_URL={origin}" in answer.body["message"]
        assert answer.body["details"] == {"origin": origin, "setting": "PAIRING_PUBLIC_URL"}
    [line] = [record for record in caplog.records if record.getMessage() == "origin refused"]
    assert (line.levelno, vars(line)["allow_with"]) == (logging.WARNING, f"PAIRING_PUBLIC_URL={origin}")


async def test_a_page_of_another_server_is_led_to_the_list(
    everywhere: Site, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await everywhere.post(LOGIN, {}, Origin="https://evil.test", Host=HOST)
    assert answer.status == 403
    assert "PAIRING_ALLOWED_ORIGINS" in answer.body["message"]
    assert answer.body["details"] == {"origin": "https://evil.test"}
    [line] = [
        vars(record)["allow_with"] for record in caplog.records if record.getMessage() == "origin refused"
    ]
    assert line == "PAIRING_ALLOWED_ORIGINS=https://evil.test"


async def test_the_log_names_no_more_than_a_hundred_origins(
    everywhere: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(150):
        await everywhere.post(LOGIN, {}, Origin=f"https://a{number}.test")
    assert sum(record.getMessage() == "origin refused" for record in caplog.records) == 100


async def test_the_sockets_refusal_is_logged_too(everywhere: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Browsers show a page nothing of it."""
    token = await everywhere.ws_token(await everywhere.account(), "desktop")
    with pytest.raises(HTTPClientError):
        await everywhere.open(token, headers={"Origin": PAGE, "Host": HOST})
    assert [record.getMessage() for record in caplog.records].count("origin refused") == 1


@pytest.fixture
def named(start_node: StartNode) -> Site:
    return start_node(public_url="https://MyHost.local:443/pairing")


async def test_the_public_url_is_compared_as_an_origin(named: Site) -> None:
    """Browsers write it in small letters, and without the usual port."""
    for origin, status in (
        ("https://myhost.local", 422),
        ("https://myhost.local:443", 422),
        ("http://myhost.local", 403),
        ("https://myhost.local.evil.test", 403),
    ):
        assert (await named.post(LOGIN, {}, Origin=origin)).status == status, origin

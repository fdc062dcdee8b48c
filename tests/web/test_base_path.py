"""The server under a path, as https://example.com/pairing/: whether the proxy passes that path on or takes it away."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest

from tests.conftest import StartNode
from tests.devices import Site

PAGES = ("/", "/phone", "/audit", "/docs")


@pytest.fixture
def below(start_node: StartNode) -> Site:
    return start_node(demo=True, public_url="https://example.com/pairing")


@pytest.mark.parametrize("prefix", ["", "/pairing"])
async def test_everything_is_found_with_and_without_the_path(below: Site, prefix: str) -> None:
    assert (await below.get(f"{prefix}/healthz")).body == {"status": "ok"}
    account = await below.account()
    made = await below.post(
        f"{prefix}/api/generate-pair-code", {"desktop_session_id": "desktop-1"}, account.token
    )
    assert made.body["pairing_uri"].startswith("https://example.com/pairing/phone#code=")
    assert (await below.call("DELETE", f"{prefix}/api/logins/none", None, account.token)).status == 404
    assert (await below.post(f"{prefix}/api/auth/login", {}, Origin="https://example.com")).status == 422
    assert (await below.get(f"{prefix}/nowhere")).error == "NOT_FOUND"
    contract = (await below.get(f"{prefix}/openapi.json")).body
    assert contract["servers"] == [{"url": "/pairing"}]
    for page in PAGES:
        text = (await below.get(f"{prefix}{page}")).body.decode()
        named = set(re.findall(r'(?:src|href)="([^"#]+)"', text)) - {"data:,"}
        for name in named:
            # As a browser reads it, for which the path is there in any case.
            seen = urljoin(f"https://example.com/pairing{page}", name)
            assert seen.startswith("https://example.com/pairing/"), (page, name)
            found = await below.get(prefix + seen.removeprefix("https://example.com/pairing"))
            assert found.status == 200, (page, name)


async def test_no_page_or_script_names_an_absolute_path(below: Site) -> None:
    for path in (
        "demo/home.js",
        "demo/device.js",
        "demo/account.js",
        "audit/main.js",
        "audit/api.js",
        "docs/init.js",
    ):
        text = (await below.get(f"/{path}")).body.decode()
        assert not re.findall(r"""["'`]/(?:api|demo|client|audit|docs|openapi|phone)\b""", text), path


async def test_the_path_itself_leads_to_the_folder_of_that_name(below: Site) -> None:
    answer = await below.get("/pairing")
    assert (answer.status, answer.headers["Location"]) == (301, "/pairing/")
    answer = await below.get("/pairing/docs/")
    assert (
        urljoin("https://example.com/pairing/docs/", answer.headers["Location"])
        == "https://example.com/pairing/docs"
    )


async def test_the_websocket_opens_below_the_path(below: Site) -> None:
    account = await below.account()
    token = await below.ws_token(account, "desktop")
    for path in ("/ws", "/pairing/ws"):
        socket = await below.open(token, path=path)
        await socket.expect("connected")


@pytest.fixture
def api(start_node: StartNode) -> Site:
    return start_node(public_url="https://example.com/api")


async def test_a_path_that_is_a_part_of_the_protocol_takes_nothing_away(api: Site) -> None:
    for path in ("/api/auth/login", "/api/api/auth/login"):
        assert (await api.post(path, {})).status == 422
    for path in ("/healthz", "/api/healthz"):
        assert (await api.get(path)).status == 200
    assert (await api.get("/apihealthz")).status == 404

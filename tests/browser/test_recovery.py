"""What happens to a link in the middle of everything: it breaks, and nothing that was said is missing or twice.

The messages are numbered, and said from both sides while the link is broken.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.async_api import expect

from pairing_server.relay.close_codes import CloseCode
from pairing_server.server.server import Node
from tests.browser.pages import Shown, Visitors, pair_across
from tests.conftest import StartNode
from tests.devices import Site

# What the browser itself says of a connection that breaks.
BROKEN = r"WebSocket connection to|ERR_INTERNET_DISCONNECTED|ERR_CONNECTION_|Failed to load resource"


async def say(device: Shown, *numbers: int) -> list[str]:
    texts = [f"{device.kind} {number}" for number in numbers]
    for text in texts:
        await device.say(text)
    return texts


async def nothing_is_missing(
    desktop: Shown, phone: Shown, by_desktop: list[str], by_phone: list[str]
) -> None:
    await desktop.is_paired()
    await phone.is_paired()
    await expect(phone.heard).to_have_text(by_desktop)
    await expect(desktop.heard).to_have_text(by_phone)
    await expect(desktop.relayed).to_have_count(len(by_desktop))
    await expect(phone.relayed).to_have_count(len(by_phone))


@pytest.fixture
def pair(visitors: Visitors) -> Visitors:
    visitors.expected.append(BROKEN)
    return visitors


@pytest.mark.parametrize("mode", ["Drops all", "Offline"])
async def test_a_bad_network_loses_nothing(pair: Visitors, demo: Site, mode: str) -> None:
    desktop, phone = await pair_across(pair, demo)
    by_desktop, by_phone = await say(desktop, 1), await say(phone, 1)
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)
    await phone.network(mode)
    by_desktop += await say(desktop, 2, 3, 4)
    by_phone += await say(phone, 2, 3)
    await desktop.slide("audioGain", 11)
    await expect(desktop.relayed).to_have_count(4)
    await phone.network("Good")
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)
    await expect(phone.control("audioGain")).to_have_value("11")


async def test_a_slow_network_keeps_the_order(pair: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(pair, demo)
    await phone.network("Slow")
    by_desktop, by_phone = await say(desktop, 1, 2, 3), await say(phone, 1, 2, 3)
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)


async def test_a_connection_that_is_cut_comes_back(pair: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(pair, demo)
    await phone.root.get_by_role("button", name="Cut the connection").click()
    by_desktop, by_phone = await say(desktop, 1, 2), await say(phone, 1, 2)
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)


async def test_a_token_that_is_refused_is_replaced_by_a_new_one(pair: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(pair, demo)
    await phone.root.get_by_role("button", name="Expire the token").click()
    by_desktop, by_phone = await say(desktop, 1, 2), await say(phone, 1, 2)
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)
    assert [event["reason"] for event in await demo.events("auth.token_rejected")] == ["signature"]


@pytest.fixture
def short_tokens(start_node: StartNode) -> Site:
    """A node whose ws tokens live for 61 seconds: it says after one that they expire."""
    return start_node(timers=True, demo=True, ws_token_ttl=61)


async def test_a_token_that_expires_is_refreshed_while_they_talk(pair: Visitors, short_tokens: Site) -> None:
    desktop, phone = await pair_across(pair, short_tokens)
    frames = phone.page.locator(".frames li")
    await phone.page.locator(".inspector > summary").click()
    await expect(frames.filter(has_text="token_refreshed").first).to_be_attached()
    by_desktop, by_phone = await say(desktop, 1), await say(phone, 1)
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)


async def test_a_browser_that_goes_offline_comes_back(pair: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(pair, demo)
    by_phone = await say(phone, 1)
    await expect(desktop.heard).to_have_text(by_phone)
    await phone.page.context.set_offline(True)
    by_desktop = await say(desktop, 1, 2)
    by_phone += await say(phone, 2)
    await expect(desktop.relayed).to_have_count(2)
    await phone.page.context.set_offline(False)
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)


async def test_a_server_that_restarts_finds_them_again(pair: Visitors, demo: Site, database_url: str) -> None:
    desktop, phone = await pair_across(pair, demo)
    by_desktop, by_phone = await say(desktop, 1), await say(phone, 1)
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)
    await demo.node.stop()
    await expect(phone.pill).to_have_text("Reconnecting")
    by_desktop += await say(desktop, 2, 3)
    by_phone += await say(phone, 2, 3)
    demo.node = Node(replace(demo.node.config, port=demo.port), database_url)
    await demo.node.start()
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)


@pytest.mark.parametrize("cut", ["phone", "desktop"])
async def test_sound_goes_on_after_a_cut_on_either_side(pair: Visitors, demo: Site, cut: str) -> None:
    desktop, phone = await pair_across(pair, demo)
    await phone.root.get_by_role("button", name="Start microphone").click()
    seconds = "(told) => Number.parseFloat(told.textContent) || 0"
    told = desktop.root.locator(".levels .way").nth(1).locator(".number")
    await expect(told).to_have_text(re.compile(r"^(0\.[2-9]|[1-9].*) s heard$"))
    device = phone if cut == "phone" else desktop
    await device.network("Offline")
    await expect(device.pill).to_have_text("Reconnecting")
    before = await told.evaluate(seconds)
    await device.network("Good")
    await desktop.is_paired()
    await phone.is_paired()
    handle = await told.element_handle()
    await desktop.page.wait_for_function(
        "([told, before]) => Number.parseFloat(told.textContent) > before + 0.5", arg=[handle, before]
    )


async def test_a_page_that_was_asleep_hears_what_was_said(pair: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(pair, demo)
    by_phone = await say(phone, 1)
    await expect(desktop.heard).to_have_text(by_phone)
    browser = await phone.page.context.new_cdp_session(phone.page)
    # As a phone does with a page that nobody looks at; after a while the connection is gone, too.
    await browser.send("Page.setWebLifecycleState", {"state": "frozen"})
    [sleeping] = [s for s in demo.node.hub.connections.values() if s.device_type == "mobile"]
    sleeping.close(CloseCode.GOING_AWAY, "asleep")
    by_desktop = await say(desktop, 1, 2)
    await expect(desktop.relayed).to_have_count(2)
    await browser.send("Page.setWebLifecycleState", {"state": "active"})
    await nothing_is_missing(desktop, phone, by_desktop, by_phone)

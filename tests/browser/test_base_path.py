"""The pages in a browser where the server is under a path."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.pages import Visitors, pair_across, pair_beside
from tests.conftest import StartNode
from tests.devices import Site

PATH = "/pairing"


class Below(Site):
    """A site whose visitors know the URL with the path."""

    @property
    def url(self) -> str:
        return super().url + PATH


@pytest.fixture
def below(start_node: StartNode) -> Site:
    site = start_node(demo=True, timers=True, public_url=f"https://example.com{PATH}")
    return Below(site.node, site.port)


async def test_both_devices_pair_and_talk_below_a_path(visitors: Visitors, below: Site) -> None:
    desktop, phone = await pair_beside(visitors, below)
    await desktop.say("Can you hear me?")
    await expect(desktop.relayed).to_have_count(1)
    await phone.root.get_by_role("button", name="Start microphone").click()
    await expect(phone.root.get_by_role("button", name="Stop microphone")).to_be_visible()


async def test_a_phone_follows_the_link_below_a_path(visitors: Visitors, below: Site) -> None:
    desktop, _ = await pair_across(visitors, below)
    await expect(desktop.page.get_by_role("link", name="API reference")).to_have_attribute("href", "docs")


async def test_the_contract_is_shown_and_tried_below_a_path(visitors: Visitors, below: Site) -> None:
    page = await visitors.visit(f"{below.url}/docs")
    await page.locator("#operations-operations-getHealthz").get_by_role("button").first.click()
    await page.get_by_role("button", name="Try it out").click()
    async with page.expect_response("**/healthz") as answer:
        await page.get_by_role("button", name="Execute").click()
    found = await answer.value
    assert (found.status, found.url) == (200, f"{below.url}/healthz")


async def test_the_audit_page_asks_for_a_login_below_a_path(visitors: Visitors, below: Site) -> None:
    visitors.expected.append("401")
    page = await visitors.visit(f"{below.url}/audit")
    await page.get_by_label("Username").fill("nobody")
    await page.get_by_label("Password").fill("a wrong password")
    async with page.expect_response("**/api/auth/login") as answer:
        await page.get_by_role("button", name="Log in").click()
    assert (await answer.value).url == f"{below.url}/api/auth/login"
    await expect(page.get_by_role("alert")).to_contain_text("wrong")

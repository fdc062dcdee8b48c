"""Barriers, as far as axe-core finds them, overflow, and pictures: of each page, in light and dark, small and large.

`pytest tests/browser/test_look.py --screenshots FOLDER` puts the pictures into FOLDER.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from tests.browser.looking import OVERFLOW, look
from tests.browser.pages import Shown, Visitors, pair_across, pair_beside
from tests.conftest import StartNode
from tests.devices import Site

# Pixels of nothing below the page's foot.
BLANK = """() => {
  const { documentElement: page, body } = document;
  return Math.max(0, page.scrollHeight - Math.max(page.clientHeight, Math.ceil(body.getBoundingClientRect().height)));
}"""

Scene = Callable[[Visitors, Site], Awaitable[Page]]


async def with_a_code(visitors: Visitors, demo: Site) -> Page:
    page = await visitors.visit(f"{demo.url}/")
    await Shown(page, "desktop").code()
    return page


async def with_a_qr_code(visitors: Visitors, demo: Site) -> Page:
    page = await visitors.visit(f"{demo.url}/#own-phone")
    await expect(page.get_by_role("img", name="QR code")).to_be_visible()
    return page


async def paired_beside(visitors: Visitors, demo: Site) -> Page:
    desktop, phone = await pair_beside(visitors, demo)
    await desktop.slide("audioGain", 40)
    await expect(phone.control("audioGain")).to_have_value("40")
    await desktop.say("Can you hear me?")
    await expect(desktop.relayed).to_have_count(1)
    await phone.say("Loud and clear.")
    await expect(phone.relayed).to_have_count(1)
    await phone.root.get_by_role("button", name="Start microphone").click()
    await expect(phone.root.get_by_role("button", name="Stop microphone")).to_be_visible()
    return desktop.page


async def with_a_bad_network(visitors: Visitors, demo: Site) -> Page:
    desktop, phone = await pair_beside(visitors, demo)
    await phone.network("Offline")
    await expect(phone.pill).to_have_text("Reconnecting")
    await desktop.say("Are you there?")
    return desktop.page


async def a_phone_with_a_code(visitors: Visitors, demo: Site) -> Page:
    page = await visitors.visit(f"{demo.url}/phone#code=123456&login={await throw_away(demo)}")
    await expect(page.get_by_label("Code that the desktop shows")).to_have_value("123 456")
    return page


async def throw_away(demo: Site) -> str:
    login = {"username": "demo-somebody", "password": "a-long-password-of-his"}
    assert (await demo.post("/api/auth/register", login)).status == 201
    return ":".join(login.values())


async def a_paired_phone(visitors: Visitors, demo: Site) -> Page:
    _, phone = await pair_across(visitors, demo)
    await phone.page.locator(".inspector > summary").click()
    return phone.page


async def a_login(visitors: Visitors, demo: Site) -> Page:
    page = await visitors.visit(f"{demo.url}/phone")
    await expect(page.get_by_label("Username")).to_be_focused()
    return page


SCENES: list[Scene] = [
    with_a_code,
    with_a_qr_code,
    paired_beside,
    with_a_bad_network,
    a_phone_with_a_code,
    a_paired_phone,
    a_login,
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_nothing_is_a_barrier_and_nothing_sticks_out(
    visitors: Visitors, demo: Site, axe: str, scene: Scene, request: pytest.FixtureRequest
) -> None:
    page = await scene(visitors, demo)
    folder = request.config.getoption("--screenshots", default=None)
    await look(page, axe, scene.__name__, folder, nothing_of=(OVERFLOW, BLANK), whole=True)


async def test_who_wants_no_motion_gets_none(visitors: Visitors, demo: Site) -> None:
    _, phone = await pair_beside(visitors, demo, reduced_motion="reduce")
    await phone.network("Offline")
    await expect(phone.pill).to_have_text("Reconnecting")
    assert await phone.page.evaluate("() => document.getAnimations().length") == 0


async def test_a_screen_reader_is_told_of_the_link_and_of_messages(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_beside(visitors, demo)
    told = phone.root.get_by_role("status").filter(has_text="Phone:")
    await expect(told).to_have_text("Phone: Paired")
    await desktop.say("hello")
    await expect(phone.root.get_by_role("log")).to_contain_text("hello")
    for name in ("Gain", "Chunk duration"):
        await expect(phone.root.get_by_role("slider", name=name, exact=True)).to_be_visible()
    await expect(phone.root.get_by_role("switch", name="Detect voice")).not_to_be_checked()


@pytest.fixture
def local(start_node: StartNode) -> Site:
    """A node that says of itself that it is on this machine."""
    return start_node(timers=True, demo=True, public_url="http://127.0.0.1:8089")


async def test_the_page_says_how_a_phone_can_reach_a_server_on_this_machine(
    visitors: Visitors, local: Site
) -> None:
    page = await visitors.visit(f"{local.url}/#own-phone")
    await expect(page.get_by_text("works on this machine only")).to_be_visible()

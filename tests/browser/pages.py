"""People with browsers, and the demonstration's pages as they use them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect

from tests.devices import Site
from tests.leaks import RUN

DESKTOP_SIZE = {"width": 1440, "height": 900}
PHONE_SIZE = {"width": 390, "height": 844}
# A page that a test puts in the place of a server's counts as one of another network.
PERMISSIONS = ["microphone", "local-network-access"]
# Milliseconds to wait for something to appear on a page.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)

# The browser tells of violations on the console, too; this has the directive and what was blocked.
WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.effectiveDirective} ${event.blockedURI}`));
"""


class Visitors:
    """Each visitor has a browser context: cookies, storage and network of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        # What the console of a page may say in this test, since the browser itself reports it; in every test, that a client
        # has waited in vain for ten seconds, on a busy machine, and dials anew.
        self.expected = ["WebSocket is closed before the connection is established"]
        self._said: list[str] = []

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the pages, violations of their policy, and requests to elsewhere."""
        return [said for said in self._said if not any(re.search(one, said) for one in self.expected)]

    async def visit(
        self,
        url: str,
        size: dict[str, int] = DESKTOP_SIZE,
        page_of_an_app: str | None = None,
        **options: Any,
    ) -> Page:
        """A page in a new context, at that URL. `page_of_an_app`: the HTML that stands there, of no server of ours."""
        context = await self._browser.new_context(viewport=size, permissions=PERMISSIONS, **options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        self._contexts.append(context)
        if page_of_an_app is not None:
            html = page_of_an_app
            await context.route(url, lambda route: route.fulfill(body=html, content_type="text/html"))
        page = await context.new_page()
        await self.watch(page, urlsplit(url).netloc)
        await page.goto(url)
        return page

    async def watch(self, page: Page, host: str) -> None:
        """Note what the page complains about."""
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._said.append(f"error: {error}"))
        page.on("request", lambda request: self._asked(request.url, host))
        await page.add_init_script(WATCH_POLICY)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._said.append(f"{message.type}: {message.text}")

    def _asked(self, url: str, host: str) -> None:
        asked = urlsplit(url)
        if asked.scheme not in ("data", "blob") and asked.netloc != host:
            self._said.append(f"asked {asked.netloc}")

    async def leave(self) -> None:
        for context in self._contexts:
            await context.close()


@dataclass(frozen=True)
class Shown:
    """One device on a page."""

    page: Page
    kind: str

    @property
    def root(self) -> Locator:
        return self.page.locator(f".device.{self.kind}")

    def control(self, name: str) -> Locator:
        """The control of an audio setting."""
        return self.root.locator(f"[name={name}]")

    @property
    def pill(self) -> Locator:
        """The state of the link."""
        return self.root.locator(".pill")

    @property
    def problem(self) -> Locator:
        return self.root.locator("> .problem")

    async def is_paired(self) -> None:
        await expect(self.pill).to_have_text("Paired")

    async def code(self) -> str:
        """The code on the desktop."""
        shown = self.root.locator("output.code")
        await expect(shown).to_have_text(re.compile(r"[0-9]{6}"))
        code = await shown.inner_text()
        digits = "".join(filter(str.isdigit, code))
        RUN.secrets.add("code", digits)
        return digits

    async def slide(self, name: str, value: float) -> None:
        await self.control(name).fill(str(value))

    async def say(self, text: str) -> None:
        await self.root.locator("[name=message]").fill(text)
        await self.root.get_by_role("button", name="Send").click()

    @property
    def heard(self) -> Locator:
        """What the other has said, oldest first."""
        return self.root.locator(".theirs p")

    @property
    def relayed(self) -> Locator:
        """What this one has said and the server has acknowledged."""
        return self.root.locator(".mine .state", has_text=re.compile("^relayed$"))

    async def network(self, mode: str) -> None:
        """Put the device on a good or bad network."""
        await self.root.get_by_role("radio", name=mode).check()


async def pair_across(visitors: Visitors, site: Site, **options: Any) -> tuple[Shown, Shown]:
    """A desktop at `/` and a phone that has followed its link, each in a browser of its own; both paired."""
    home = await visitors.visit(f"{site.url}/#own-phone")
    desktop = Shown(home, "desktop")
    await desktop.code()
    link = home.get_by_role("link", name="Open the phone page")
    await expect(link).to_have_attribute("href", re.compile("^phone#code="))
    given = {"size": PHONE_SIZE, "has_touch": True, **options}
    page = await visitors.visit(f"{site.url}/{await link.get_attribute('href')}", **given)
    phone = Shown(page, "mobile")
    await phone.root.get_by_role("button", name="Pair", exact=True).click()
    await phone.is_paired()
    await desktop.is_paired()
    return desktop, phone


async def pair_beside(visitors: Visitors, site: Site, **options: Any) -> tuple[Shown, Shown]:
    """Both devices on the page `/`, paired by a click."""
    page = await visitors.visit(f"{site.url}/", **options)
    desktop, phone = Shown(page, "desktop"), Shown(page, "mobile")
    await desktop.code()
    await phone.root.get_by_role("button", name="Type it for me").click()
    await phone.is_paired()
    await desktop.is_paired()
    return desktop, phone

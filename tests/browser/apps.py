"""Apps of other people that use the client: pages with a script, each in a browser of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.async_api import Page, expect

from tests.browser.pages import Visitors
from tests.devices import Account, Site

_GUIDE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
# docs/client.md's pieces of code by their names.
SNIPPETS: dict[str, str] = dict(
    re.findall(r"^<!-- example: (\S+) -->\n```jsx?\n(.*?)^```$", _GUIDE, re.M | re.S)
)

BODY = """
<link rel="icon" href="data:,">
<p id="state"></p> <p id="code"></p> <p id="problem"></p>
<form><input name="code"><button>Pair</button></form>
<button id="say">Say hello</button> <p id="heard"></p> <p id="said"></p>
<input type="range" name="gain">
<button id="microphone">Microphone</button> <meter></meter> <p id="seconds"></p>
<div id="app"></div>
"""


async def open_app(visitors: Visitors, site: Site, account: Account, path: str, script: str) -> Page:
    """A page of the server's origin with that script, which may call getAccessToken()."""
    known = f"window.getAccessToken = async () => {json.dumps(account.token)};"
    safe = script.replace("</script", "<\\/script")
    html = f'<!doctype html><title>App</title>{BODY}<script>{known}</script><script type="module">{safe}</script>'
    return await visitors.visit(f"{site.url}{path}", page_of_an_app=html)


async def pair_apps(desktop: Page, phone: Page) -> None:
    """Type the desktop's code on the phone."""
    await expect(desktop.locator("#code")).to_have_text(re.compile("[0-9]{6}"))
    await phone.locator("[name=code]").fill(await desktop.locator("#code").inner_text())
    await phone.get_by_role("button", name="Pair").click()
    for page in (desktop, phone):
        await expect(page.locator("#state")).to_have_text("paired")

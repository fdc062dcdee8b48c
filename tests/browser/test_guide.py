"""Every piece of code in docs/client.md does what the text around it says."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.browser.apps import SNIPPETS, open_app, pair_apps
from tests.browser.packages import Workshop
from tests.browser.pages import Visitors
from tests.devices import Site

USED = {
    "client-desktop",
    "client-phone",
    "client-messages",
    "client-settings",
    "client-audio",
    "client-zustand",
    "client-react",
}
SHARED = [SNIPPETS[f"client-{name}"] for name in ("messages", "settings", "audio")]
IMPORT = re.compile(r"^import .*\n", re.MULTILINE)
PACKED = re.compile(r'"/client/(\w+)\.js"')


def app(first: str) -> str:
    """The pieces of one side in their order, the imports in front."""
    text = "\n".join([SNIPPETS[first], *SHARED])
    return "".join(IMPORT.findall(text)) + IMPORT.sub("", text)


def bundled(workshop: Workshop, first: str, *rest: str) -> str:
    """The same with the packages from npm."""
    text = "\n".join([SNIPPETS[first], *rest])
    text = "".join(IMPORT.findall(text)) + IMPORT.sub("", text)
    return workshop.bundle(PACKED.sub(r'"pairing-client"', text))


async def pages(visitors: Visitors, site: Site, desktop_script: str, phone_script: str) -> tuple[Page, Page]:
    account = await site.account()
    desktop = await open_app(visitors, site, account, "/my-desktop", desktop_script)
    phone = await open_app(visitors, site, account, "/my-phone", phone_script)
    await pair_apps(desktop, phone)
    return desktop, phone


def test_no_piece_of_code_is_left_untested() -> None:
    assert set(SNIPPETS) == USED


async def test_the_two_pages_pair_talk_share_settings_and_sound(visitors: Visitors, site: Site) -> None:
    desktop, phone = await pages(visitors, site, app("client-desktop"), app("client-phone"))
    await phone.locator("#say").click()
    await expect(desktop.locator("#heard")).to_have_text("hello")
    await expect(phone.locator("#said")).to_have_text(re.compile("number [0-9]+"))
    await desktop.locator("[name=gain]").fill("77")
    await expect(phone.locator("[name=gain]")).to_have_value("77")
    await phone.locator("#microphone").click()
    await expect(desktop.locator("#seconds")).to_have_text(re.compile(r"^(0\.[2-9]|[1-9])"))
    await phone.locator("#microphone").click()


async def test_a_page_that_is_loaded_anew_comes_back(visitors: Visitors, site: Site) -> None:
    desktop, phone = await pages(visitors, site, app("client-desktop"), app("client-phone"))
    for page in (desktop, phone):
        await page.reload()
        await expect(page.locator("#state")).to_have_text("paired")
    await desktop.locator("#say").click()
    await expect(phone.locator("#heard")).to_have_text("hello")


async def test_a_wrong_code_is_told_in_words(visitors: Visitors, site: Site) -> None:
    visitors.expected.append("status of 404")
    phone = await open_app(visitors, site, await site.account(), "/my-phone", app("client-phone"))
    await phone.locator("[name=code]").fill("000 000")
    await phone.get_by_role("button", name="Pair").click()
    await expect(phone.locator("#problem")).to_contain_text("code")


async def test_a_zustand_store_shares_its_slice_and_keeps_the_rest(
    visitors: Visitors, site: Site, workshop: Workshop
) -> None:
    store = [SNIPPETS["client-zustand"], "window.store = useStore;"]
    desktop, phone = await pages(
        visitors, site, bundled(workshop, "client-desktop", *store), bundled(workshop, "client-phone", *store)
    )
    await desktop.evaluate("store.getState().change({ audioGain: 12 }); store.setState({ theme: 'light' })")
    await phone.wait_for_function("store.getState().audioSettings.audioGain === 12")
    assert await phone.evaluate("store.getState().theme") == "dark"
    await phone.evaluate("store.getState().change({ vadEnabled: true })")
    await desktop.wait_for_function("store.getState().audioSettings.vadEnabled")
    shared = {"audioGain": 12, "autoGainEnabled": True, "vadEnabled": True}
    for page in (desktop, phone):
        assert await page.evaluate("store.getState().audioSettings") == shared


PHONE = """
import { createRoot } from "react-dom/client";
import { PairingClient } from "pairing-client";
import { usePairing } from "pairing-client/react";

const client = new PairingClient({ deviceType: "mobile", accessToken: getAccessToken });
const renders = [];
window.renders = renders;

function Phone() {
  const { state, isConnected, isPaired, error, pairWithCode } = usePairing(client);
  renders.push({ isConnected, isPaired });
  const pair = async () => {
    window.result = await pairWithCode(document.querySelector("[name=code]").value);
  };
  return <><button onClick={pair}>Pair here</button> <output>{state}</output> <em>{error?.code}</em></>;
}
createRoot(document.querySelector("#app")).render(<Phone />);
"""


async def test_the_hook_of_a_phone_says_whether_it_has_paired_and_why_not(
    visitors: Visitors, site: Site, workshop: Workshop
) -> None:
    visitors.expected.append("status of 404")
    account = await site.account()
    desktop = await open_app(visitors, site, account, "/my-desktop", app("client-desktop"))
    phone = await open_app(visitors, site, account, "/my-react", workshop.bundle(PHONE))
    await expect(desktop.locator("#code")).to_have_text(re.compile("[0-9]{6}"))
    code = await desktop.locator("#code").inner_text()
    for typed, state, error, result in (
        (f"{(int(code) + 1) % 10**6:06d}", "idle", "INVALID_CODE", False),
        (code, "paired", "", True),
    ):
        await phone.locator("[name=code]").fill(typed)
        await phone.get_by_role("button", name="Pair here").click()
        await phone.wait_for_function("(wanted) => window.result === wanted", arg=result)
        await expect(phone.locator("output")).to_have_text(state)
        await expect(phone.locator("em")).to_have_text(error)
    assert await phone.evaluate("renders.every(({ isConnected, isPaired }) => isConnected || !isPaired)")


RENDER = """
import { createRoot } from "react-dom/client";
const client = new PairingClient({ deviceType: KIND, accessToken: getAccessToken });
createRoot(document.querySelector("#app")).render(<Pairing client={client} />);
"""


async def test_a_react_component_shows_the_code_and_then_the_app(
    visitors: Visitors, site: Site, workshop: Workshop
) -> None:
    text = 'import { PairingClient } from "pairing-client";\n' + SNIPPETS["client-react"]
    script = workshop.bundle(text + RENDER.replace("KIND", '"desktop"'))
    account = await site.account()
    desktop = await open_app(visitors, site, account, "/my-react", script)
    await desktop.get_by_role("button", name="Pair a phone").click()
    await expect(desktop.locator("output")).to_have_text(re.compile("[0-9]{6}"))
    phone = await open_app(visitors, site, account, "/my-phone", app("client-phone"))
    await phone.locator("[name=code]").fill(await desktop.locator("output").inner_text())
    await phone.get_by_role("button", name="Pair").click()
    gain = desktop.get_by_role("slider", name="Gain")
    await expect(gain).to_have_value("50")
    await phone.locator("[name=gain]").fill("33")
    await expect(gain).to_have_value("33")
    await gain.press("ArrowRight")
    await expect(phone.locator("[name=gain]")).to_have_value("34")

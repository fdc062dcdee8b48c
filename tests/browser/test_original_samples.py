"""The sample clients of the original specification in a browser: not a character of them is changed.

They are TypeScript, and name their server `ws://localhost:8089`: the page stands in for that one. What they leave to the application is
here, and only that. tests/end_to_end has more of them without a browser.
"""

from __future__ import annotations

import asyncio
import json

from playwright.async_api import Page

from tests.browser.apps import open_app
from tests.browser.packages import Workshop
from tests.browser.pages import Visitors
from tests.devices import Account, Site
from tests.protocol import EXAMPLES

FAR = 3600.0  # seconds: by then whatever the settings have put off is due

SAMPLES = "\n".join(
    EXAMPLES[f"original-{name}"].text
    for name in ("zustand-store", "message-handler", "desktop-pairing-service", "mobile-pairing-service")
)
APPLICATION = """
let webSocket: WebSocket;
const seen = { messages: 0 };

const connected = (Service: any, path: string) => class extends Service {
  authToken = AUTH_TOKEN;
  sessionId = crypto.randomUUID();

  async getWebSocketToken() {
    const answer = await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Authorization': `Bearer ${AUTH_TOKEN}` },
      body: JSON.stringify({ username: 'optional' })
    });
    return (await answer.json()).token;
  }

  async connectWebSocket() {
    await super.connectWebSocket();
    webSocket = this.ws;
    webSocket.onmessage = (event) => {
      seen.messages += 1;
      handleWebSocketMessage(event);
    };
  }

  // The phone's sample uses it without showing it; the desktop's has it.
  send(message: any) {
    if (webSocket && webSocket.readyState === WebSocket.OPEN) webSocket.send(JSON.stringify(message));
  }
};
const Desktop = connected(PairingService, '/api/auth/ws-token');
const Phone = connected(MobilePairingService, '/api/auth/ws-token-mobile');

/** All that the server had to say by now is handled: how many messages that were, pongs aside. */
let pongs = 0;
const heard = () => new Promise((resolve) => {
  webSocket.addEventListener('message', function look(event) {
    const { type, sequence } = JSON.parse(event.data);
    if (type !== 'pong' || sequence !== pongs) return;
    webSocket.removeEventListener('message', look);
    resolve(seen.messages - pongs);
  });
  webSocket.send(JSON.stringify({ type: 'ping', sequence: ++pongs }));
});
Object.assign(window, { desktop: new Desktop(), phone: new Phone(), heard, usePairingStore });
"""
# The server's name in the samples, for this page.
HERE = """
const { WebSocket: Real } = window;
window.WebSocket = class extends Real {
  constructor(url) { super(url.replace('ws://localhost:8089', location.origin.replace('http', 'ws'))); }
};
"""


async def sample(visitors: Visitors, site: Site, workshop: Workshop, account: Account, path: str) -> Page:
    token = f"const AUTH_TOKEN = {json.dumps(account.token)};\n"
    page = await open_app(
        visitors, site, account, path, HERE + workshop.bundle(token + SAMPLES + APPLICATION, loader="ts")
    )
    await page.wait_for_function("!!window.usePairingStore")
    return page


async def until_quiet(site: Site, *pages: Page) -> int:
    """Let the stores answer each other until there is nothing left to say. How many messages that took."""
    [channel] = site.node.hub.channels.values()
    before = -1
    while (total := sum([await page.evaluate("heard()") for page in pages])) != before:
        assert total < 300, "the stores never stop talking"
        before = total
        # What is put off until the edits are over: now they are.
        channel.settings.settle(asyncio.get_running_loop().time() + FAR)
    return before


async def test_two_browsers_with_the_samples_pair_end_up_equal_and_go_quiet(
    visitors: Visitors, site: Site, workshop: Workshop
) -> None:
    account = await site.account()
    desktop, phone = [
        await sample(visitors, site, workshop, account, path) for path in ("/my-desktop", "/my-phone")
    ]
    code = await desktop.evaluate("desktop.generatePairingCode()")
    await desktop.evaluate("desktop.connectWebSocket()")
    assert await phone.evaluate("(code) => phone.pairWithDesktop(code)", code) is True
    for page in (desktop, phone):
        await page.wait_for_function("usePairingStore.getState().isPaired")
    # By turns, until the server knows both for clients that send back what they get, be it late.
    for turn in range(1, 5):
        for page, edit in ((phone, {"overlapPercent": 16 + turn}), (desktop, {"chunkDuration": turn})):
            await page.evaluate("(edit) => usePairingStore.getState().updateAudioSettings(edit)", edit)
            await until_quiet(site, desktop, phone)
    # A slider on one side, a switch on the other, at the same time.
    await asyncio.gather(
        desktop.evaluate(
            "for (let gain = 0; gain <= 20; gain += 1) usePairingStore.getState().updateAudioSettings({ audioGain: gain })"
        ),
        phone.evaluate("usePairingStore.getState().updateAudioSettings({ vadEnabled: true })"),
    )
    await until_quiet(site, desktop, phone)
    settings = [await page.evaluate("usePairingStore.getState().audioSettings") for page in (desktop, phone)]
    assert settings[0] == settings[1]
    assert settings[0].items() >= {"audioGain": 20, "vadEnabled": True, "overlapPercent": 20}.items()

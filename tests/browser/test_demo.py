"""The demonstration in a real browser: two devices pair, move each other's settings, talk and listen."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, expect

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.security.limits import Rate
from tests.browser.pages import PHONE_SIZE, Shown, Visitors, pair_across, pair_beside
from tests.conftest import StartNode
from tests.devices import Site

PASSWORD = "correct horse battery staple"


async def test_two_browsers_pair_by_the_link_of_the_qr_code(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(visitors, demo)
    channel = await desktop.root.locator(".facts dd").nth(2).inner_text()
    assert re.fullmatch("pair-[0-9]{6}", channel)
    await expect(phone.root.locator(".facts dd").nth(2)).to_have_text(channel)
    await expect(desktop.root.locator(".facts dd").first).to_have_text("here")


async def test_neither_code_nor_login_stays_in_the_address_of_the_phone(
    visitors: Visitors, demo: Site
) -> None:
    _, phone = await pair_across(visitors, demo)
    assert phone.page.url == f"{demo.url}/phone"


async def test_settings_move_on_both_sides(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(visitors, demo)
    await desktop.slide("audioGain", 20)
    await expect(phone.control("audioGain")).to_have_value("20")
    await phone.control("vadEnabled").click()
    await expect(desktop.control("vadEnabled")).to_be_checked()
    await phone.control("language").select_option("de")
    await expect(desktop.control("language")).to_have_value("de")
    await expect(desktop.control("audioGain")).to_have_value("20")


async def test_a_slider_that_is_dragged_ends_at_the_same_place_on_both_sides(
    visitors: Visitors, demo: Site
) -> None:
    desktop, phone = await pair_beside(visitors, demo)
    box = await desktop.control("audioGain").bounding_box()
    assert box is not None
    await desktop.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await desktop.page.mouse.down()
    await desktop.page.mouse.move(box["x"] + 5, box["y"] + box["height"] / 2, steps=60)
    await desktop.page.mouse.up()
    ended = await desktop.control("audioGain").input_value()
    assert int(ended) < 10
    await expect(phone.control("audioGain")).to_have_value(ended)


async def test_they_talk(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(visitors, demo)
    await desktop.say("<b>hello</b>")
    await expect(phone.heard).to_have_text(["<b>hello</b>"])
    await expect(desktop.relayed).to_have_count(1)
    await phone.say("hello yourself")
    await expect(desktop.heard).to_have_text(["hello yourself"])


async def loud(meter: Locator) -> None:
    """Wait until the meter shows something, be it for a moment."""
    await meter.evaluate(
        """(meter) => new Promise((resolve) => {
          const look = () => meter.value > 0.02 && resolve();
          new MutationObserver(look).observe(meter, { attributes: true });
          look();
        })"""
    )


HEARD = re.compile(r"^([1-9][0-9]*\.[0-9]|0\.[1-9]) s heard$")


async def test_the_microphone_is_heard_and_decoded_on_the_other_side(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(visitors, demo)
    await phone.root.get_by_role("button", name="Start microphone").click()
    heard = desktop.root.get_by_text(HEARD)
    await expect(heard).to_be_visible()
    # The fake microphone beeps, which the meters of both show.
    for meter in (phone.root.get_by_label("To the desktop"), desktop.root.get_by_label("From the phone")):
        await loud(meter)
    await phone.root.get_by_role("button", name="Stop microphone").click()


# What a recorder on a busy machine does: it gives the first byte alone.
TORN = """() => {
  const listen = MediaRecorder.prototype.addEventListener;
  MediaRecorder.prototype.addEventListener = function (name, act) {
    let first = true;
    listen.call(this, name, ({ data }) => {
      const parts = first ? [data.slice(0, 1, data.type), data.slice(1, data.size, data.type)] : [data];
      first = false;
      for (const part of parts) act({ data: part });
    });
  };
}"""


async def test_a_stream_whose_first_byte_comes_alone_is_heard(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(visitors, demo)
    await phone.page.evaluate(TORN)
    await phone.root.get_by_role("button", name="Start microphone").click()
    await expect(desktop.root.get_by_text(HEARD)).to_be_visible()
    await loud(desktop.root.get_by_label("From the phone"))


# As in a page over http:// on a phone.
NO_MICROPHONE = 'Object.defineProperty(navigator, "mediaDevices", { value: undefined });'


async def test_a_page_that_gets_no_microphone_says_why(visitors: Visitors, demo: Site) -> None:
    page = await visitors.visit(f"{demo.url}/healthz")
    await page.add_init_script(NO_MICROPHONE)
    await page.goto(f"{demo.url}/")
    desktop, phone = Shown(page, "desktop"), Shown(page, "mobile")
    await desktop.code()
    await phone.root.get_by_role("button", name="Type it for me").click()
    await phone.is_paired()
    await expect(phone.root.get_by_role("button", name="Start microphone")).to_be_disabled()
    await expect(phone.root.get_by_text("only over https://")).to_be_visible()
    refused = await page.evaluate(
        """async () => {
          const { startMicrophone } = await import("/client/audio.js");
          return startMicrophone({ onChunk() {} }).catch(({ name }) => name);
        }"""
    )
    assert refused == "SecurityError"


# A client that passes on what its recorder gives, as it comes. The seconds decoded, once there are any.
PLAY_TORN = """async () => {
  const { AudioPlayer, startMicrophone } = await import("/client/audio.js");
  const player = new AudioPlayer();
  let first = true;
  let done = Promise.resolve();
  const push = async (chunk, format) => {
    const data = new Uint8Array(await chunk.arrayBuffer());
    const parts = first ? [data.slice(0, 1), data.slice(1, 3), data.slice(3)] : [data];
    first = false;
    for (const part of parts) player.push({ data: part, format });
  };
  const microphone = await startMicrophone({ onChunk: (chunk, { format }) => (done = done.then(() => push(chunk, format))) });
  while (!player.seconds) await new Promise(requestAnimationFrame);
  const { seconds } = player;
  microphone.stop();
  player.stop();
  return seconds;
}"""


async def test_the_player_knows_a_stream_whose_first_bytes_come_alone(visitors: Visitors, demo: Site) -> None:
    page = await visitors.visit(f"{demo.url}/")
    assert await page.evaluate(PLAY_TORN) > 0


# What a page is told of a microphone that goes, and of sound that cannot be played.
TELL_FAULTS = """async () => {
  const { AudioPlayer, startMicrophone } = await import("/client/audio.js");
  const told = [];
  const player = new AudioPlayer({ onError: ({ message }) => told.push(message) });
  const webm = [0x1a, 0x45, 0xdf, 0xa3];
  const push = (format, ...bytes) => player.push({ data: Uint8Array.from(bytes), format });
  for (let round = 0; round < 3; round += 1) push("pcm_s16le", 1, 2, 3);
  push("audio/x-unknown", ...webm);
  player.push({ data: "*", format: "webm" });
  push("webm", ...webm, ...Array(100).fill(0));
  while (told.length < 4) await new Promise(requestAnimationFrame);
  player.stop();
  const muted = [];
  const microphone = await startMicrophone({
    onChunk() {},
    onEnded: ({ message }) => told.push(message),
    onMuted: (now) => muted.push(now),
  });
  const [track] = microphone.stream.getTracks();
  for (const event of ["mute", "unmute", "ended", "ended"]) track.dispatchEvent(new Event(event));
  microphone.stop();
  const { start } = MediaRecorder.prototype;
  MediaRecorder.prototype.start = () => { throw new DOMException("", "NotSupportedError"); };
  const { getUserMedia } = navigator.mediaDevices;
  let given;
  navigator.mediaDevices.getUserMedia = async (...about) => (given = await getUserMedia.apply(navigator.mediaDevices, about));
  const failed = await startMicrophone({ onChunk() {} }).catch(({ name }) => name);
  MediaRecorder.prototype.start = start;
  return [told, muted, track.readyState, failed, given.getTracks()[0].readyState];
}"""


async def test_a_page_is_told_what_ends_its_sound(visitors: Visitors, demo: Site) -> None:
    page = await visitors.visit(f"{demo.url}/")
    told, *rest = await page.evaluate(TELL_FAULTS)
    words = ["pcm_s16le", "audio/x-unknown", "base64", "decoded", "microphone is gone"]
    assert len(told) == len(words) and all(word in text for word, text in zip(words, told, strict=True)), told
    assert rest == [[True, False], "ended", "NotSupportedError", "ended"]


async def test_who_comes_in_the_middle_of_a_stream_hears_it_from_there(
    visitors: Visitors, demo: Site
) -> None:
    desktop, phone = await pair_across(visitors, demo)
    await phone.root.get_by_role("button", name="Start microphone").click()
    heard = desktop.root.get_by_text(HEARD)
    await expect(heard).to_be_visible()
    # The page forgets all it has heard, the beginning of the stream too.
    await desktop.page.reload()
    await desktop.is_paired()
    await expect(heard).to_be_visible()
    await loud(desktop.root.get_by_label("From the phone"))


async def test_both_on_one_page_pair_by_one_click(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_beside(visitors, demo)
    await phone.slide("chunkDuration", 5.5)
    await expect(desktop.control("chunkDuration")).to_have_value("5.5")


async def test_the_frames_of_both_are_shown_each_way(visitors: Visitors, demo: Site) -> None:
    desktop, _ = await pair_beside(visitors, demo)
    await desktop.say("a word")
    frames = desktop.page.locator(".frames li")
    sent = frames.filter(has_text="Desktop").filter(has_text="sends").filter(has_text="a word")
    received = frames.filter(has_text="Phone").filter(has_text="receives").filter(has_text="a word")
    await expect(sent).to_have_count(1)
    await expect(received).to_have_count(1)
    await received.locator("summary").click()
    await expect(received.locator("pre")).to_contain_text('"seq"')


async def test_a_reload_comes_back_to_the_same_channel(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(visitors, demo)
    await desktop.slide("audioGain", 33)
    await expect(phone.control("audioGain")).to_have_value("33")
    await phone.page.reload()
    await phone.is_paired()
    await expect(phone.control("audioGain")).to_have_value("33")
    await desktop.page.reload()
    await desktop.is_paired()
    await phone.is_paired()


async def test_unpairing_ends_it_for_both(visitors: Visitors, demo: Site) -> None:
    desktop, phone = await pair_across(visitors, demo)
    await phone.root.get_by_role("button", name="Unpair").click()
    await expect(phone.control("code")).to_be_visible()
    await expect(desktop.problem).to_contain_text("ended")
    await desktop.root.get_by_role("button", name="New code").click()
    await desktop.code()


async def test_a_wrong_code_is_told(visitors: Visitors, demo: Site) -> None:
    visitors.expected.append("status of 404")  # the browser's own word on the answer
    page = await visitors.visit(f"{demo.url}/")
    desktop, phone = Shown(page, "desktop"), Shown(page, "mobile")
    wrong = f"{(int(await desktop.code()) + 1) % 10**6:06d}"
    await phone.control("code").fill(wrong)
    await phone.root.get_by_role("button", name="Pair", exact=True).click()
    await expect(phone.problem).to_contain_text("code")
    await expect(phone.control("code")).to_be_focused()


@pytest.fixture
def closed(start_node: StartNode) -> Site:
    """A node with the demonstration, where only the operator makes accounts."""
    return start_node(timers=True, demo=True, registration="closed")


async def test_where_registration_is_closed_the_pages_ask_who_it_is(visitors: Visitors, closed: Site) -> None:
    visitors.expected.append("status of 401")
    await closed.node.services.accounts.add_user(system(utcnow()), "alice", PASSWORD, "user")
    home = await visitors.visit(f"{closed.url}/#own-phone")
    await home.get_by_label("Username").fill("alice")
    await home.get_by_label("Password").fill("not it, not at all")
    await home.get_by_role("button", name="Log in").click()
    await expect(home.get_by_role("alert")).to_contain_text("wrong")
    await home.get_by_label("Password").fill(PASSWORD)
    await home.get_by_role("button", name="Log in").click()
    desktop = Shown(home, "desktop")
    code = await desktop.code()

    link = await home.get_by_role("link", name="Open the phone page").get_attribute("href")
    assert link == f"phone#code={code}"  # a real account's password goes nowhere
    page = await visitors.visit(f"{closed.url}/{link}", PHONE_SIZE)
    await page.get_by_label("Username").fill("alice")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    phone = Shown(page, "mobile")
    await phone.root.get_by_role("button", name="Pair", exact=True).click()
    await phone.is_paired()
    await desktop.is_paired()
    kept = await home.evaluate("() => JSON.stringify({...sessionStorage, ...localStorage})")
    assert PASSWORD not in kept


async def test_too_many_accounts_are_told_with_the_wait(visitors: Visitors, demo: Site) -> None:
    visitors.expected.append("status of 429")
    for number in range(30):
        await demo.post("/api/auth/register", {"username": f"user-{number}", "password": PASSWORD})
    page = await visitors.visit(f"{demo.url}/")
    await expect(page.locator(".login")).to_contain_text("Too many throw-away accounts")
    await expect(page.locator(".login")).to_contain_text(re.compile(r"[0-9]+:[0-9]{2} minutes"))


async def test_everything_can_be_done_with_the_keyboard(visitors: Visitors, demo: Site) -> None:
    page = await visitors.visit(f"{demo.url}/")
    desktop, phone = Shown(page, "desktop"), Shown(page, "mobile")
    code = await desktop.code()
    keys = page.keyboard

    async def reach(selector: str) -> None:
        for _ in range(60):
            await keys.press("Tab")
            if await page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
                return
        raise AssertionError(f"the Tab key never reaches {selector}")

    await page.locator("body").press("Tab")
    assert await page.evaluate("() => document.activeElement.className") == "skip"
    await keys.press("Enter")
    await reach(".mobile [name=code]")
    await keys.type(code)
    await keys.press("Enter")
    await phone.is_paired()
    await reach(".mobile [name=audioGain]")
    await keys.press("ArrowRight")
    await expect(desktop.control("audioGain")).to_have_value("76")
    await reach(".mobile [name=vadEnabled]")
    await keys.press("Space")
    await expect(desktop.control("vadEnabled")).to_be_checked()
    await reach(".mobile [name=message]")
    await keys.type("typed")
    await keys.press("Enter")
    await expect(desktop.heard).to_have_text(["typed"])


@pytest.fixture
def attacked(start_node: StartNode) -> Site:
    """A node that sees an attack in a single wrong code, and admits any account."""
    return start_node(timers=True, demo=True, redeem_policy="any_user", redeem_alarm=Rate(1, 60))


async def test_while_codes_are_guessed_the_desktop_is_asked_whether_the_phone_is_wanted(
    visitors: Visitors, attacked: Site
) -> None:
    visitors.expected += ["status of 404", "status of 409"]
    desktop = Shown(await visitors.visit(f"{attacked.url}/#own-phone"), "desktop")
    code = await desktop.code()
    phone = Shown(await visitors.visit(f"{attacked.url}/phone", PHONE_SIZE), "mobile")
    for typed in (f"{(int(code) + 1) % 10**6:06d}", code):
        await phone.control("code").fill(typed)
        await phone.root.get_by_role("button", name="Pair", exact=True).click()
    await expect(phone.problem).to_contain_text("Confirm it there")
    await desktop.root.get_by_role("button", name="Let it in").click()
    await phone.is_paired()
    await desktop.is_paired()

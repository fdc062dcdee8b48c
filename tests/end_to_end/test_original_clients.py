"""The flows of the original specification's clients against a running node: first in Python, then the very samples.

The samples are read from docs/protocol.md and run by Node.js where that is installed (see original_samples.mjs).
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.devices import Site
from tests.end_to_end.original_clients import (
    DEFAULTS,
    MobilePairingService,
    PairingService,
    Store,
    UsePairing,
)
from tests.protocol import EXAMPLES

FAR = 3600.0  # seconds: by then whatever the settings have put off is due


async def services(site: Site) -> tuple[PairingService, MobilePairingService]:
    """One user's two clients, before they have done anything."""
    account = await site.account()
    return (
        PairingService(site, account, f"desktop-{uuid4()}"),
        MobilePairingService(site, account, f"mobile-{uuid4()}"),
    )


async def paired(site: Site) -> tuple[PairingService, MobilePairingService]:
    """The same, paired, with nothing left to read."""
    desktop, mobile = await services(site)
    code = await desktop.generate_pairing_code()
    await desktop.connect_web_socket()
    assert await mobile.pair_with_desktop(code)
    await mobile.receive("pairing_success")
    await desktop.receive("pairing_success")
    return desktop, mobile


# The services.


async def test_the_desktop_connects_identifies_and_joins_without_waiting(site: Site) -> None:
    desktop, _ = await services(site)
    code = await desktop.generate_pairing_code()
    assert re.fullmatch(r"[0-9]{6}", code)
    assert desktop.channel_id == f"pair-{code}"
    await desktop.connect_web_socket()
    await desktop.receive("channel_joined")
    assert desktop.seen == ["connected", "identified", "channel_joined"]


async def test_the_phone_pairs_by_the_code_and_both_get_pairing_success(site: Site) -> None:
    desktop, mobile = await services(site)
    code = await desktop.generate_pairing_code()
    await desktop.connect_web_socket()
    assert await mobile.pair_with_desktop(code) is True
    assert mobile.channel_id == desktop.channel_id
    assert (await mobile.receive("pairing_success"))["channelId"] == mobile.channel_id
    assert (await desktop.receive("pairing_success"))["code"] == code
    assert "error" not in desktop.seen + mobile.seen


async def test_the_phone_may_be_first(site: Site) -> None:
    desktop, mobile = await services(site)
    assert await mobile.pair_with_desktop(await desktop.generate_pairing_code())
    await mobile.receive("channel_joined")
    await desktop.connect_web_socket()
    await desktop.receive("pairing_success")
    await mobile.receive("pairing_success")


async def test_a_wrong_code_is_false_for_the_phone_and_the_right_one_still_works(site: Site) -> None:
    desktop, mobile = await services(site)
    code = await desktop.generate_pairing_code()
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert await mobile.pair_with_desktop(wrong) is False
    assert await mobile.pair_with_desktop(code) is True


async def test_what_the_services_send_arrives(site: Site) -> None:
    desktop, mobile = await paired(site)
    desktop.sync_state("audioSettings", {"audioGain": 75})
    payload = (await mobile.receive("channel_message"))["payload"]
    assert payload == {"action": "STATE_UPDATE", "stateType": "audioSettings", "data": {"audioGain": 75}}
    mobile.send_audio_chunk("UklGRg==")
    chunk = await desktop.receive("audio_chunk")
    assert (chunk["data"], chunk["format"], chunk["sample_rate"]) == ("UklGRg==", "webm", 16000)
    mobile.sync_settings(DEFAULTS)
    assert (await desktop.receive("settings_sync"))["settings"] == DEFAULTS


async def test_the_desktop_learns_that_the_phone_has_gone(site: Site) -> None:
    desktop, mobile = await paired(site)
    assert mobile.ws is not None
    mobile.ws.close()
    assert (await desktop.receive("mobile_disconnected"))["force_disconnect"] is False


@pytest.mark.parametrize("who", ["desktop", "mobile"])
async def test_a_client_that_reconnects_with_the_same_token_goes_on(site: Site, who: str) -> None:
    desktop, mobile = await paired(site)
    comes_back, stays = (desktop, mobile) if who == "desktop" else (mobile, desktop)
    mobile.sync_settings({"audioGain": 60})
    await desktop.receive("settings_sync")
    before = comes_back.ws_token
    assert comes_back.ws is not None
    comes_back.ws.close()
    await stays.receive(f"{who}_disconnected")
    await comes_back.connect_web_socket()
    assert comes_back.ws_token == before
    assert (await comes_back.receive("channel_joined"))["settings"] == {"audioGain": 60}
    await comes_back.receive("pairing_success")
    await stays.receive("pairing_success")
    mobile.send_audio_chunk("AAAA")
    await desktop.receive("audio_chunk")
    desktop.sync_state("transcript", {"paragraph": 1})
    await mobile.receive("channel_message")


async def test_a_client_that_reconnects_before_its_old_socket_has_gone_goes_on(site: Site) -> None:
    desktop, mobile = await paired(site)
    await mobile.connect_web_socket()
    await mobile.receive("channel_joined")
    mobile.send_audio_chunk("AAAA")
    await desktop.receive("audio_chunk")
    assert "mobile_disconnected" not in desktop.seen


async def test_the_hook_pairs_in_its_order(site: Site) -> None:
    desktop, mobile = await services(site)
    there, here = UsePairing(desktop), UsePairing(mobile)
    await there.generate_code()
    assert (there.is_connected, there.is_paired) == (True, False)
    assert there.pairing_code is not None
    assert await here.pair_with_code(there.pairing_code)
    assert (here.is_connected, here.is_paired) == (True, True)
    await desktop.receive("pairing_success")
    desktop.sync_state("audioSettings", DEFAULTS)
    assert (await mobile.receive("channel_message"))["payload"]["data"] == DEFAULTS


# The store that sends back whatever it receives.


async def stores(site: Site) -> tuple[Store, Store]:
    desktop, mobile = await services(site)
    both = Store(desktop), Store(mobile)
    code = await desktop.generate_pairing_code()
    await desktop.connect_web_socket()
    await mobile.pair_with_desktop(code)
    await mobile.receive("pairing_success")
    await desktop.receive("pairing_success")
    assert all(store.is_paired for store in both)
    return both


async def until_quiet(site: Site, *both: Store) -> int:
    """Let the clients answer each other until there is nothing left to say. How many messages that took."""
    [channel] = site.node.hub.channels.values()
    total = 0
    while total < 200:
        handled = sum([await store.service.drain() for store in both])
        if not handled:
            # What is put off until the edits are over: now they are.
            channel.settings.settle(asyncio.get_running_loop().time() + FAR)
            handled = sum([await store.service.drain() for store in both])
        if not handled:
            return total
        total += handled
    raise AssertionError("the clients never stop talking")


def one_edits(desktop: Store, _: Store) -> None:
    desktop.update_audio_settings({"audioGain": 75})


def a_preset(desktop: Store, _: Store) -> None:
    desktop.update_audio_settings({"audioGain": 20, "vadEnabled": True, "chunkDuration": 1.5})


def both_edit(desktop: Store, mobile: Store) -> None:
    desktop.update_audio_settings({"audioGain": 75})
    mobile.update_audio_settings({"vadEnabled": True})


def both_edit_one_key(desktop: Store, mobile: Store) -> None:
    desktop.update_audio_settings({"audioGain": 75})
    mobile.update_audio_settings({"audioGain": 25})


def a_slider_against_a_switch(desktop: Store, mobile: Store) -> None:
    for step in range(20):
        desktop.update_audio_settings({"audioGain": step})
    mobile.update_audio_settings({"autoGainEnabled": False})


EXPECTED: dict[Callable[[Store, Store], None], dict[str, object]] = {
    one_edits: {"audioGain": 75},
    a_preset: {"audioGain": 20, "vadEnabled": True, "chunkDuration": 1.5},
    both_edit: {"audioGain": 75, "vadEnabled": True},
    both_edit_one_key: {},
    a_slider_against_a_switch: {"audioGain": 19, "autoGainEnabled": False},
}


@pytest.mark.parametrize("edit", EXPECTED, ids=lambda edit: edit.__name__)
async def test_two_naive_stores_go_quiet_and_end_up_equal(
    site: Site, edit: Callable[[Store, Store], None]
) -> None:
    desktop, mobile = await stores(site)
    mobile.update_audio_settings({"overlapPercent": 20})
    await until_quiet(site, desktop, mobile)
    edit(desktop, mobile)
    await until_quiet(site, desktop, mobile)
    assert desktop.audio_settings == mobile.audio_settings
    assert desktop.audio_settings.items() >= EXPECTED[edit].items()
    if edit is both_edit_one_key:
        assert desktop.audio_settings["audioGain"] in (25, 75)


async def test_two_naive_stores_whose_very_first_edits_cross_end_up_equal(site: Site) -> None:
    desktop, mobile = await stores(site)
    # Both send all they have, and nobody can know yet what of it is an edit.
    both_edit(desktop, mobile)
    await until_quiet(site, desktop, mobile)
    assert desktop.audio_settings == mobile.audio_settings


async def test_a_state_update_by_channel_message_does_not_ring_between_the_stores(site: Site) -> None:
    desktop, mobile = await stores(site)
    assert isinstance(desktop.service, PairingService)
    desktop.service.sync_state("audioSettings", {"overlapPercent": 30})
    await until_quiet(site, desktop, mobile)
    assert desktop.audio_settings == mobile.audio_settings
    assert mobile.audio_settings["overlapPercent"] == 30


async def test_a_store_that_comes_back_with_old_settings_gets_the_present_ones(site: Site) -> None:
    desktop, mobile = await stores(site)
    desktop.update_audio_settings({"audioGain": 10})
    await until_quiet(site, desktop, mobile)
    assert mobile.service.ws is not None
    mobile.service.ws.close()
    await desktop.service.receive("mobile_disconnected")
    desktop.update_audio_settings({"audioGain": 90})
    await mobile.service.connect_web_socket()
    await mobile.service.receive("pairing_success")
    await until_quiet(site, desktop, mobile)
    assert desktop.audio_settings == mobile.audio_settings == {**DEFAULTS, "audioGain": 90}


# The samples themselves.


def javascript(name: str) -> str:
    """A sample without its types: JavaScript knows none, and everything else stays as it is."""
    text = EXAMPLES[name].text
    text = re.sub(r"^interface \w+ \{\n.*?^\}\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^import .*\n", "", text, flags=re.MULTILINE)  # handed in as an argument
    text = re.sub(r"\b(create|useState)<[^>]+>\(", r"\1(", text)
    text = re.sub(r"^( *)private (\w+): [^=\n]+ = ", r"\1\2 = ", text, flags=re.MULTILINE)
    text = re.sub(r"^( *)private ", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"\): Promise<\w+> \{", ") {", text)
    return re.sub(r"(?<=[(,])( ?\w+): [A-Za-z]+(?=[,)]| = ')", r"\1", text)


NODE = shutil.which("node")
NODE_OPTIONS: list[str] = []


def _why_not() -> str:
    """Why the samples cannot run here; empty if they can. Node.js has WebSocket from 22 on, 20 as an option."""
    if NODE is None:
        return "Node.js is not installed"
    for options in ([], ["--experimental-websocket"]):
        tried = subprocess.run(
            [NODE, "--no-warnings", *options, "-e", "new WebSocket('ws://127.0.0.1:1').onerror = () => {}"],
            capture_output=True,
        )
        if tried.returncode == 0:
            NODE_OPTIONS[:] = ["--no-warnings", *options]
            return ""
    return "this Node.js has no WebSocket; 20.10 or newer has"


WHY_NOT = _why_not()
SAMPLES = (
    "original-zustand-store",
    "original-message-handler",
    "original-desktop-pairing-service",
    "original-mobile-pairing-service",
    "original-use-pairing",
)


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("story", ["services", "hook", "stores"])
async def test_the_original_samples_work_as_they_stand(site: Site, story: str) -> None:
    account = await site.account()
    given = {
        "story": story,
        "base": site.url,
        "token": account.token,
        "samples": {name: javascript(name) for name in SAMPLES},
    }
    program = Path(__file__).with_name("original_samples.mjs")
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        *NODE_OPTIONS,
        str(program),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(given).encode())
    assert process.returncode == 0, err.decode()
    assert json.loads(out) == {"story": story, "done": True}

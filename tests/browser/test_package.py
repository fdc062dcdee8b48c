"""The client as an app gets it from npm: what is in the package, how large it is, and whether its types are right."""

from __future__ import annotations

import gzip

from pairing_server.web.client_files import CLIENT
from tests.browser.packages import Workshop

CORE = 7 * 1024

USE = """
import { AudioPlayer, startMicrophone } from "pairing-client/audio";
import { PairingClient, PairingError, type State } from "pairing-client";
import { usePairing } from "pairing-client/react";
import { paired, pairSync } from "pairing-client/zustand";
import { create } from "zustand";
import { createStore } from "zustand/vanilla";

const client = new PairingClient({ deviceType: "desktop", accessToken: async () => "token", url: "https://pair.example" });
const off: () => void = client.on("message", ({ payload, seq }) => console.log(payload.text, seq.toFixed()));
client.on("state", (state: State, why?: PairingError) => why?.code.length);
client.on("weather_report", (message) => message.anything);
const { code, expiresAt } = await client.generateCode();
code.padStart(6); expiresAt.getTime();
const { seq } = await client.send({ text: "hello" });
client.syncSettings({ gain: seq });

const microphone = await startMicrophone({ onChunk: (chunk, about) => client.sendAudio(chunk, about) });
const player = new AudioPlayer({ onLevel: (level) => level.toFixed(), onError: (error) => error.message });
client.on("audio", (chunk) => player.push(chunk));
microphone.stop();

interface State2 { audioSettings: { gain: number }; theme: string; set(gain: number): void }
const store = createStore<State2>()(() => ({ audioSettings: { gain: 1 }, theme: "dark", set() {} }));
pairSync(store, client, { pick: "audioSettings" })();
pairSync(store, client, { pick: ["theme"] });
pairSync(store, client, { pick: (state) => state.audioSettings, apply: (news, state) => ({ audioSettings: { ...state.audioSettings, ...news } }) });
const useStore = create<State2>()(paired(() => ({ audioSettings: { gain: 1 }, theme: "dark", set() {} }), client, { pick: ["theme"] }));
useStore.getState().theme.length;

export function Pairing() {
  const { isPaired, pairingCode, generateCode, error } = usePairing(client);
  return isPaired ? <p>paired</p> : <button onClick={generateCode}>{pairingCode ?? error?.message}</button>;
}
"""


def test_the_package_has_its_modules_and_types_and_nothing_else(workshop: Workshop) -> None:
    assert workshop.packed == sorted(path.name for path in CLIENT.iterdir())
    assert {name.partition(".")[2] for name in workshop.packed} == {"js", "d.ts", "json", "md"}


def test_the_core_is_small(workshop: Workshop) -> None:
    bundle = workshop.bundle('export { PairingClient } from "pairing-client";', minify=True)
    size = len(gzip.compress(bundle.encode(), 9, mtime=0))
    assert size < CORE


# A mistake, and what the compiler must say about it.
MISTAKES = {
    'new PairingClient({ deviceType: "tablet", accessToken: () => "" });': "tablet",
    'new PairingClient({ deviceType: "mobile" });': "accessToken",
    'client.send("hello");': "string",
    'client.on("message", ({ paylaod }) => paylaod);': "paylaod",
    'pairSync(store, client, { pick: ["colour"] });': "colour",
}


def test_it_can_be_used_with_types_which_find_mistakes(workshop: Workshop) -> None:
    """All at once: the compiler reads its libraries for seconds."""
    right, *wrong = workshop.complaints(USE, *(USE + mistake for mistake in MISTAKES))
    assert right == ""
    for mistake, told in zip(MISTAKES, wrong, strict=True):
        assert MISTAKES[mistake] in told, mistake

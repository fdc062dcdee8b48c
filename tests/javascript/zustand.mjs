// pairSync and its middleware with the real Zustand, against a running server.
import { assert, device, given, pair, sent, tell, until } from "./story.mjs";
import { paired, pairSync } from "../../pairing_server/static/client/zustand.js";

const { createStore } = await import(given.zustand);
const { persist } = await import(given.zustand.replace("vanilla", "middleware"));
const state = () => ({ audioSettings: { gain: 50, voice: false }, theme: "dark", reset: () => {} });
const change = (store, changes) => store.setState({ audioSettings: { ...store.getState().audioSettings, ...changes } });
const syncs = (client) => sent(client, "settings_sync").map(({ settings }) => settings);

async function stores(options = { pick: "audioSettings" }) {
  const clients = await pair();
  const here = createStore(state);
  const there = createStore(state);
  pairSync(here, clients.desktop, options);
  await until("offered", clients.phone, () => Object.keys(clients.phone.settings).length);
  pairSync(there, clients.phone, options);
  return { ...clients, here, there };
}

await tell({
  async a_change_reaches_the_other_store_and_is_not_sent_back() {
    const { desktop, phone, here, there } = await stores();
    change(here, { gain: 10 });
    await until("10", phone, () => there.getState().audioSettings.gain === 10);
    await phone.send({ n: 1 });
    assert.deepEqual(syncs(phone), []);
    assert.deepEqual(syncs(desktop), [{ gain: 50, voice: false }, { gain: 10 }]);
    assert.equal(there.getState().audioSettings.voice, false);
    return [desktop, phone];
  },

  async what_json_does_not_hold_stays_as_it_is_and_is_named_once() {
    const { desktop, phone } = await pair();
    const refused = [];
    desktop.on("settings-refused", ({ key }) => refused.push(key));
    const cycle = [];
    cycle.push(cycle);
    const own = { when: new Date(), map: new Map([[1, 2]]), set: new Set([1]), nan: NaN, act() {}, big: 1n, cycle };
    const here = createStore(() => ({ ...own, gain: 1, later: 1 }));
    const warnings = [];
    console.warn = (text) => warnings.push(text.match(/"(.*)"/)[1]);
    pairSync(here, desktop, { pick: [...Object.keys(own), "gain", "later"] });
    await until("gain", phone, () => phone.settings.gain === 1);
    here.setState({ later: 2n });
    here.setState({ gain: 2 });
    await until("2", phone, () => phone.settings.gain === 2);
    assert.deepEqual(phone.settings, { gain: 2, later: 1 });
    assert.deepEqual(refused, [...Object.keys(own), "later"]);
    assert.deepEqual(warnings, refused);
    // Not even what the other device has under such a key.
    phone.syncSettings({ ...Object.fromEntries(Object.keys(own).map((key) => [key, key])), gain: 3 });
    await until("3", desktop, () => here.getState().gain === 3);
    for (const key of Object.keys(own)) assert(Object.is(here.getState()[key], own[key]), key);
    return [desktop, phone];
  },

  async objects_are_compared_by_their_text_and_keep_their_functions() {
    const { desktop, phone } = await pair();
    const play = () => {};
    const first = { audio: { gain: 1, old: true, play, meter: { on: true, play }, only: { play }, list: [{ n: 1 }] }, toString: "own" };
    const here = createStore(() => ({ shared: first }));
    pairSync(here, desktop, { pick: "shared" });
    await until("offered", phone, () => phone.settings.audio);
    const changes = [];
    here.subscribe(() => changes.push(1));
    // The same once more is no change of the store.
    phone.syncSettings({ audio: { ...phone.settings.audio, only: {}, gain: 2 }, valueOf: 1, hasOwnProperty: 1, constructor: 1 });
    await until("2", desktop, () => here.getState().shared.audio.gain === 2);
    assert.deepEqual(here.getState().shared.audio, { ...first.audio, gain: 2 });
    phone.syncSettings({ audio: { gain: 3, meter: { on: false }, list: [] }, ["__proto__"]: { gain: 4 } });
    await until("3", desktop, () => here.getState().shared.audio.gain === 3);
    assert.deepEqual(here.getState().shared, { ...first, audio: { gain: 3, play, meter: { on: false, play }, only: { play }, list: [] } });
    assert.equal(Object.getPrototypeOf(here.getState().shared), Object.prototype);
    assert.equal(changes.length, 2);
    return [desktop, phone];
  },

  async a_burst_within_one_task_is_one_message() {
    const { desktop, phone, here, there } = await stores();
    for (let gain = 0; gain < 40; gain += 1) change(here, { gain });
    change(here, { voice: true });
    await until("39", phone, () => there.getState().audioSettings.gain === 39);
    assert.deepEqual(syncs(desktop).slice(1), [{ gain: 39, voice: true }]);
    return [desktop, phone];
  },

  async what_is_not_picked_stays_here() {
    const { desktop, phone, here, there } = await stores();
    here.setState({ theme: "light" });
    change(here, { gain: 1 });
    await until("1", phone, () => there.getState().audioSettings.gain === 1);
    assert.equal(there.getState().theme, "dark");
    assert.deepEqual(Object.keys(phone.settings), ["gain", "voice"]);
    return [desktop, phone];
  },

  async a_list_of_keys_is_shared_key_by_key() {
    const { desktop, phone, here, there } = await stores({ pick: ["theme"] });
    there.setState({ theme: "light" });
    await until("light", desktop, () => here.getState().theme === "light");
    change(here, { gain: 1 });
    await desktop.send({ n: 1 });
    assert.deepEqual(desktop.settings, { theme: "light" });
    return [desktop, phone];
  },

  async a_function_picks_and_another_applies() {
    const options = {
      pick: ({ audioSettings, theme }) => ({ loud: audioSettings.gain > 70, theme }),
      apply: (news, { audioSettings }) => ("loud" in news ? { audioSettings: { ...audioSettings, gain: news.loud ? 100 : 0 } } : news),
    };
    const { desktop, phone, here, there } = await stores(options);
    change(here, { gain: 80 });
    await until("loud", phone, () => there.getState().audioSettings.gain === 100);
    return [desktop, phone];
  },

  async edits_of_both_at_once_end_up_equal() {
    const { desktop, phone, here, there } = await stores();
    for (let round = 0; round < 20; round += 1) {
      change(here, { gain: round });
      change(there, round % 2 ? { gain: 100 + round } : { voice: !there.getState().audioSettings.voice });
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const equal = () => JSON.stringify(here.getState().audioSettings) === JSON.stringify(there.getState().audioSettings);
    // Edits that crossed are settled once both have been quiet for a moment.
    await new Promise((resolve) => setTimeout(resolve, 600));
    await until("equal", [desktop, phone], equal);
    const before = syncs(desktop).length + syncs(phone).length;
    await Promise.all([desktop.send({ n: 1 }), phone.send({ n: 1 })]);
    assert.equal(syncs(desktop).length + syncs(phone).length, before);
    return [desktop, phone];
  },

  async a_store_that_alters_what_it_gets_does_not_start_a_quarrel() {
    const { desktop, phone } = await pair();
    const clamp = (most) => (set) => ({ gain: 0, put: (gain) => set({ gain: Math.min(gain, most) }) });
    const here = createStore(clamp(100));
    const there = createStore(clamp(10));
    pairSync(here, desktop, { pick: ["gain"] });
    // What both had at first must not cross the edit.
    await until("offered", phone, () => "gain" in phone.settings);
    pairSync(there, phone, { pick: (state) => ({ gain: state.gain }), apply: ({ gain }) => ({ gain: Math.min(gain, 10) }) });
    here.getState().put(60);
    await until("clamped", phone, () => there.getState().gain === 10);
    await phone.send({ n: 1 });
    assert(syncs(phone).every(({ gain }) => gain !== 10));
    assert.equal(here.getState().gain, 60);
    return [desktop, phone];
  },

  async a_store_that_is_hydrated_late_does_not_undo_the_channel() {
    const { desktop, phone } = await pair();
    phone.syncSettings({ gain: 7 });
    await until("7", desktop, () => desktop.settings.gain === 7);
    let answer;
    const storage = { getItem: () => new Promise((resolve) => (answer = resolve)), setItem() {}, removeItem() {} };
    const here = createStore(persist(() => ({ gain: 0, language: "en" }), { name: "late", storage }));
    const stop = pairSync(here, desktop, { pick: ["gain", "language"] });
    here.setState({ gain: 1 });
    await desktop.send({ n: 1 });
    assert.deepEqual(syncs(desktop), []);
    const hydrate = () => {
      answer({ state: { gain: 2, language: "nl" }, version: 0 });
      return new Promise(setImmediate);
    };
    await hydrate();
    assert.deepEqual(here.getState(), { gain: 7, language: "nl" });
    await until("nl", phone, () => phone.settings.language === "nl");
    // Once more, by hand.
    here.persist.rehydrate();
    phone.syncSettings({ gain: 8 });
    await until("8", desktop, () => desktop.settings.gain === 8);
    await hydrate();
    assert.equal(here.getState().gain, 8);
    here.setState({ gain: 9 });
    await until("9", phone, () => phone.settings.gain === 9);
    assert.deepEqual(syncs(desktop), [{ language: "nl" }, { gain: 9 }]);
    stop();
    here.persist.rehydrate();
    await hydrate();
    assert.equal(syncs(desktop).length, 2);
    return [desktop, phone];
  },

  async who_comes_later_takes_over_what_the_channel_has() {
    const desktop = device("desktop");
    const here = createStore(() => ({ gain: 1, theme: "dark" }));
    pairSync(here, desktop, { pick: ["gain", "theme"] });
    const { code } = await desktop.generateCode();
    here.setState({ gain: 2 });
    await until("sent", desktop, () => syncs(desktop).length);
    const phone = device("mobile");
    const there = createStore(() => ({ gain: 99, language: "nl" }));
    pairSync(there, phone, { pick: ["gain", "language"] });
    await phone.pair(code);
    await until("2", phone, () => there.getState().gain === 2);
    await until("nl", desktop, () => desktop.settings.language === "nl");
    assert.deepEqual(there.getState(), { gain: 2, language: "nl" });
    assert.deepEqual(here.getState(), { gain: 2, theme: "dark" });
    return [desktop, phone];
  },

  async the_middleware_is_the_same() {
    const { desktop, phone } = await pair();
    const here = createStore(paired(state, desktop, { pick: "audioSettings" }));
    const there = createStore(paired(state, phone, { pick: "audioSettings" }));
    await Promise.resolve();
    change(there, { gain: 7 });
    await until("7", desktop, () => here.getState().audioSettings.gain === 7);
    return [desktop, phone];
  },

  async two_stores_with_a_common_key_agree() {
    const { desktop, phone, here } = await stores();
    const second = createStore(() => ({ gain: 5, own: 1 }));
    pairSync(second, desktop, { pick: ["gain", "own"] });
    assert.equal(second.getState().gain, 50);
    change(here, { gain: 5 });
    assert.equal(second.getState().gain, 5);
    second.setState({ gain: 1 });
    assert.equal(here.getState().audioSettings.gain, 1);
    await until("1", phone, () => phone.settings.gain === 1);
    phone.syncSettings({ gain: 2 });
    await until("2", desktop, () => second.getState().gain === 2 && here.getState().audioSettings.gain === 2);
    await desktop.send({ n: 1 });
    assert.deepEqual(syncs(desktop).slice(1), [{ gain: 1 }, { own: 1 }]);
    return [desktop, phone];
  },

  async what_was_edited_between_unmount_and_mount_holds() {
    const { desktop, phone } = await pair();
    const here = createStore(() => ({ gain: 1, voice: false, when: NaN }));
    const mount = () => pairSync(here, desktop, { pick: ["gain", "voice", "when"] });
    const stop = mount();
    await until("offered", phone, () => phone.settings.gain === 1);
    stop();
    here.setState({ gain: 2 });
    phone.syncSettings({ voice: true });
    await until("voice", desktop, () => desktop.settings.voice);
    stop();
    mount()();
    mount();
    assert.deepEqual(here.getState(), { gain: 2, voice: true, when: NaN });
    await until("2", phone, () => phone.settings.gain === 2);
    assert.deepEqual(syncs(desktop).slice(1), [{ gain: 2 }]);
    assert.equal(phone.settings.voice, true);
    return [desktop, phone];
  },

  async once_stopped_it_is_apart() {
    const { desktop, phone } = await pair();
    const here = createStore(state);
    const stop = pairSync(here, desktop, { pick: "audioSettings" });
    change(here, { gain: 1 });
    await until("1", phone, () => phone.settings.gain === 1);
    stop();
    change(here, { gain: 2 });
    phone.syncSettings({ gain: 3 });
    // The phone's edit may have crossed the rest of what the desktop has offered.
    await until("3", [desktop, phone], () => desktop.settings.gain === 3 && phone.settings.gain === 3);
    assert.equal(here.getState().audioSettings.gain, 2);
    return [desktop, phone];
  },
});

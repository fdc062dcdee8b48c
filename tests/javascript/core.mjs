// The client against a running server: pairing, order, queue, resumption, tokens, close codes.
import { createServer } from "node:http";
import { ask, assert, breakable, device, given, got, kept, pair, patience, sent, tell, token, until, base } from "./story.mjs";

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => from + at);
const say = (client, list) => Promise.all(list.map((n) => client.send({ n })));
const heard = (client, list) => until(`${list} heard`, client, () => client.told.messages.length >= list.length).then(() => assert.deepEqual(client.told.messages, list));

await tell({
  async they_pair_and_talk_both_ways() {
    const { desktop, phone } = await pair();
    const [ack] = await say(desktop, [1]);
    assert.equal(ack.seq, 1);
    await Promise.all([say(desktop, [2, 3]), say(phone, [10])]);
    await heard(phone, [1, 2, 3]);
    await heard(desktop, [10]);
    assert.deepEqual(desktop.told.states, ["connecting", "waiting", "paired"]);
    return [desktop, phone];
  },

  async a_group_is_in_every_url() {
    const urls = [];
    const watched = {
      group: "team 1&2",
      fetch: (url, options) => {
        urls.push(url);
        return fetch(url, options);
      },
      webSocket: class extends WebSocket {
        constructor(url, protocols) {
          super(url, protocols);
          urls.push(url);
        }
      },
    };
    const { desktop, phone } = await pair({ desktop: watched, phone: watched });
    assert.deepEqual(new Set(urls.map((url) => new URL(url).searchParams.get("group"))), new Set(["team 1&2"]));
    const paths = new Set(urls.map((url) => new URL(url).pathname));
    assert.deepEqual(paths, new Set(["/api/generate-pair-code", "/api/pair-device", "/api/auth/ws-token", "/api/auth/ws-token-mobile", "/ws"]));
    return [desktop, phone];
  },

  async nobody_is_paired_before_both_are_there() {
    const desktop = device("desktop");
    const { code } = await desktop.generateCode();
    await desktop.connect();
    assert.equal(desktop.state, "waiting");
    assert.equal(desktop.told.paired, 0);
    const phone = device("mobile");
    const pairing = phone.pair(code);
    assert.equal(phone.told.paired, 0);
    await pairing;
    await until("paired", [desktop, phone], () => desktop.told.paired && phone.told.paired);
    assert.equal(desktop.told.paired + phone.told.paired, 2);
    return [desktop, phone];
  },

  async what_is_said_before_the_phone_comes_is_not_lost() {
    const desktop = device("desktop");
    const { code } = await desktop.generateCode();
    const waiting = say(desktop, [1, 2]);
    const phone = device("mobile");
    await phone.pair(code);
    await waiting;
    await heard(phone, [1, 2]);
    return [desktop, phone];
  },

  async without_a_channel_sending_is_refused() {
    const desktop = device("desktop");
    await assert.rejects(desktop.send({ n: 1 }), { code: "NOT_IN_CHANNEL" });
    await assert.rejects(desktop.connect(), { code: "NOT_IN_CHANNEL" });
    assert.equal(desktop.sendAudio(new Uint8Array(3)), false);
    assert.equal(desktop.state, "idle");
  },

  async a_wrong_code_is_told_and_the_right_one_still_works() {
    const desktop = device("desktop");
    const { code } = await desktop.generateCode();
    const phone = device("mobile");
    await assert.rejects(phone.pair(String((Number(code) + 1) % 1e6).padStart(6, "0")), { code: "INVALID_CODE", status: 404 });
    assert.deepEqual([phone.state, phone.channel], ["idle", null]);
    await phone.pair(code);
    return [desktop, phone];
  },

  async what_is_no_object_or_too_large_is_refused_at_once() {
    const { desktop, phone } = await pair();
    for (const payload of [undefined, null, 1, "a", [], () => {}]) await assert.rejects(desktop.send(payload), TypeError);
    await assert.rejects(desktop.send({ pad: "x".repeat(65_536) }), { code: "PAYLOAD_TOO_LARGE" });
    await assert.rejects(desktop.send({ pad: "ü".repeat(33_000) }), { code: "PAYLOAD_TOO_LARGE" });
    await say(desktop, [1]);
    await heard(phone, [1]);
    return [desktop, phone];
  },

  async what_the_server_refuses_rejects_that_promise_alone() {
    const { desktop, phone } = await pair();
    let deep = { n: 0 };
    for (let level = 0; level < 20; level += 1) deep = { deep };
    const results = await Promise.allSettled([desktop.send({ n: 1 }), desktop.send(deep), desktop.send({ n: 2 })]);
    assert.deepEqual(results.map(({ status }) => status), ["fulfilled", "rejected", "fulfilled"]);
    assert.equal(results[1].reason.code, "VALIDATION_ERROR");
    await heard(phone, [1, 2]);
    assert.deepEqual(desktop.told.errors, []);
    return [desktop, phone];
  },

  // The server of this story takes any number: one that was held up for a moment would see a burst where there was none.
  async a_burst_beyond_the_rate_is_sent_no_faster_than_the_rate_and_arrives_in_order() {
    const { desktop, phone } = await pair();
    const began = performance.now();
    const times = [];
    desktop.on("frame", ({ direction, text }) => direction === "out" && text.includes('"channel_message"') && times.push(performance.now() - began));
    await say(desktop, numbers(1, 200));
    await heard(phone, numbers(1, 200));
    assert.deepEqual(desktop.told.errors, []);
    assert.equal(times.length, 200);
    // What "Limits" in the protocol allows: 120 at once, 60 a second.
    for (const [before, time] of times.entries()) assert(before + 1 <= 120 + (60 * time) / 1000, `${before + 1} messages in ${time} ms`);
    return [desktop, phone];
  },

  async what_has_no_ack_counts_against_the_rate_however_long_that_takes() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ desktop: { webSocket: Breakable } });
    await until("a pong", desktop, () => desktop.latency !== null);
    const socket = last();
    const held = [];
    socket.send = (data) => held.push(data); // the network is held up
    const { now } = performance;
    let later = 0;
    performance.now = () => now.call(performance) + later;
    const acked = say(desktop, numbers(1, 200));
    await Promise.resolve();
    later = 10_000;
    // It looks again after 40 ms whether there is room by now.
    await new Promise((resolve) => setTimeout(resolve, 80));
    assert(held.length > 90 && held.length <= 100, `${held.length} are under way`);
    delete socket.send;
    held.forEach((data) => socket.send(data));
    await acked;
    await heard(phone, numbers(1, 200));
    assert(!got(desktop, "error").length);
    return [desktop, phone];
  },

  // The server of this story takes 20 a second, which no client knows.
  async a_stricter_server_gets_all_the_same() {
    const { desktop, phone } = await pair();
    await say(desktop, numbers(1, 60));
    await until("all heard", phone, () => phone.told.messages.length >= 60);
    assert.deepEqual(phone.told.messages.toSorted?.((a, b) => a - b) ?? [...phone.told.messages].sort((a, b) => a - b), numbers(1, 60));
    assert(got(desktop, "error").some(({ code }) => code === "RATE_LIMITED"));
    return [desktop, phone];
  },

  async the_queue_is_bounded() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ desktop: { webSocket: Breakable } });
    last().lose();
    assert.equal(desktop.state, "reconnecting");
    const waiting = numbers(1, 256).map((n) => desktop.send({ n }));
    await assert.rejects(desktop.send({ n: 257 }), { code: "QUEUE_FULL", retryable: true });
    assert.equal(desktop.queued, 256);
    await Promise.all(waiting);
    await heard(phone, numbers(1, 256));
    assert.equal(desktop.queued, 0);
    return [desktop, phone];
  },

  async what_is_said_while_the_connection_is_away_arrives_once_and_in_order() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ desktop: { webSocket: Breakable }, phone: { webSocket: Breakable } });
    for (let round = 0; round < 5; round += 1) {
      const list = numbers(10 * round, 10 * round + 9);
      const all = [say(desktop, list), say(phone, list)];
      // In the middle: what was sent may have arrived or not.
      await Promise.resolve();
      last().lose();
      await Promise.all(all);
    }
    await heard(phone, numbers(0, 49));
    await heard(desktop, numbers(0, 49));
    assert.deepEqual([desktop.told.gaps, phone.told.gaps], [[], []]);
    return [desktop, phone];
  },

  async a_message_whose_ack_was_lost_is_sent_again_and_arrives_once() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ desktop: { webSocket: Breakable } });
    const socket = last();
    socket.onmessage = null; // nothing more is heard
    const acked = say(desktop, [1, 2]);
    await heard(phone, [1, 2]);
    socket.lose();
    await acked;
    assert.deepEqual(sent(desktop, "channel_message").map(({ again }) => again), [undefined, undefined, true, true]);
    await say(desktop, [3]);
    await heard(phone, [1, 2, 3]);
    return [desktop, phone];
  },

  async who_was_away_hears_what_was_said_meanwhile() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    await say(desktop, [1]);
    await heard(phone, [1]);
    last().lose();
    await say(desktop, [2, 3]);
    await heard(phone, [1, 2, 3]);
    const [, again] = sent(phone, "join_channel");
    assert.equal(again.epoch, got(phone, "channel_joined")[0].epoch);
    assert.equal(again.last_seq, 1);
    assert.deepEqual(phone.told.gaps, []);
    return [desktop, phone];
  },

  async who_missed_too_much_is_told_of_the_gap() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable, heartbeat: 3_600_000 } });
    await say(desktop, [1]);
    await heard(phone, [1]);
    // With no ping under way and none to come, it does not find out by itself that nothing is heard any more.
    await until("a pong", phone, () => phone.latency !== null);
    last().onmessage = null;
    for (let round = 0; round < 3; round += 1) await say(desktop, numbers(100 * round, 100 * round + 99));
    last().lose();
    await until("a gap", phone, () => phone.told.gaps.length);
    assert.deepEqual(phone.told.gaps, [{ reason: "not_recovered" }]);
    await until("the rest", phone, () => phone.told.messages.at(-1) === 299);
    return [desktop, phone];
  },

  async a_dead_connection_is_noticed_without_a_word_from_anybody() {
    const { Breakable, last } = breakable();
    const waits = patience(8000);
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable, heartbeat: 50 } });
    await until("pongs", [desktop, phone], () => desktop.latency !== null && phone.latency !== null);
    last().deaf = true; // the network swallows what goes out
    const before = sent(phone, "ping").length;
    await until("a ping into the void", phone, () => sent(phone, "ping").length > before);
    assert.equal(phone.state, "paired");
    waits.end();
    assert.equal(phone.state, "reconnecting");
    await until("paired again", phone, () => phone.state === "paired");
    return [desktop, phone];
  },

  async a_page_that_wakes_does_not_wait() {
    const listeners = new Map();
    globalThis.addEventListener = (name, act) => listeners.set(name, act);
    globalThis.removeEventListener = (name) => listeners.delete(name);
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    // The time until it would try again by itself never passes.
    assert.equal(kept(() => last().lose()).length, 1);
    assert.equal(phone.state, "reconnecting");
    listeners.get("online")({ type: "online" });
    await until("paired again", phone, () => phone.state === "paired");
    phone.close();
    desktop.close();
    assert.equal(listeners.size, 0);
  },

  async the_server_restarts_and_nothing_that_was_said_meanwhile_is_lost() {
    const { desktop, phone } = await pair();
    await say(desktop, [1]);
    await say(phone, [1]);
    await heard(phone, [1]);
    await ask("stop");
    await until("noticed", [desktop, phone], () => desktop.state === "reconnecting" && phone.state === "reconnecting");
    const all = [say(desktop, [2, 3]), say(phone, [2, 3])];
    phone.syncSettings({ gain: 7 });
    await ask("start");
    await Promise.all(all);
    await heard(phone, [1, 2, 3]);
    await heard(desktop, [1, 2, 3]);
    await until("settings", desktop, () => desktop.settings.gain === 7);
    return [desktop, phone];
  },

  async a_message_that_was_taken_before_the_restart_does_not_come_twice_after_it() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ desktop: { webSocket: Breakable } });
    last().onmessage = null; // the ack never comes
    const acked = say(desktop, [1]);
    await heard(phone, [1]);
    await ask("stop");
    await ask("start");
    await acked;
    await say(desktop, [2]);
    await heard(phone, [1, 2]);
    return [desktop, phone];
  },

  async a_token_is_refreshed_before_it_expires() {
    const asked = [];
    const lines = [];
    console.debug = (...about) => lines.push(about.join(" "));
    globalThis.sessionStorage = undefined;
    globalThis.localStorage = { "pairing:debug": "1" };
    const { desktop, phone } = await pair({ phone: { debug: true, accessToken: (refused) => (asked.push(refused), token) } });
    await until("refreshed", phone, () => got(phone, "token_refreshed").length);
    assert.equal(sent(phone, "refresh_token")[0].token, "…");
    assert(!phone.told.states.includes("reconnecting"));
    assert(asked.every((refused) => refused === false));
    await phone.send({ n: 1, inner: { Password: 'a"b', token_hint: "c" } });
    for (const [name, client] of [["desktop", desktop], ["mobile", phone]]) {
      const own = lines.filter((line) => line.startsWith(`pairing ${name}: `)).join("\n");
      for (const step of ["state paired", "out {", "in {"]) assert(own.includes(step), `${step} in ${own}`);
      assert.equal(own.match(/: (out|in) /g).length, client.told.frames.length);
    }
    const all = lines.join("\n");
    assert(all.includes('"payload":{"n":1,"inner":{"Password":"…","token_hint":"…"}}') && !all.includes(token));
    desktop.close();
    phone.close();
    lines.length = 0;
    delete globalThis.localStorage;
    const quiet = device("desktop");
    await quiet.generateCode();
    await quiet.connect();
    assert.deepEqual(lines, []);
    return quiet;
  },

  async a_refused_ws_token_is_replaced_at_once() {
    let bad = true;
    const phoneToken = async () => {
      const answer = await fetch(`${base}/api/auth/ws-token-mobile`, {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
        body: "{}",
      });
      const given = await answer.json();
      if (bad) given.token = `${given.token.slice(0, -4)}AAAA`;
      bad = false;
      return given;
    };
    const { desktop, phone } = await pair({ phone: { wsToken: phoneToken } });
    assert.equal(got(phone, "error")[0].code, "INVALID_TOKEN");
    assert.deepEqual(phone.told.errors, []);
    return [desktop, phone];
  },

  async a_refused_access_token_is_asked_for_once_more() {
    const asked = [];
    const desktop = device("desktop", { accessToken: (refused) => (asked.push(refused), refused ? token : "rubbish") });
    const { code } = await desktop.generateCode();
    assert.match(code, /^[0-9]{6}$/);
    assert.deepEqual(asked.slice(0, 2), [false, true]);
    await desktop.connect();
    return desktop;
  },

  async without_a_good_access_token_it_stops() {
    const desktop = device("desktop", { accessToken: () => "rubbish" });
    await assert.rejects(desktop.generateCode(), { code: "INVALID_TOKEN", status: 401 });
    const { desktop: good, phone } = await pair();
    good.close();
    phone.close();
    const back = device("desktop", { accessToken: () => "rubbish", storage: { getItem: () => good.channel, setItem() {}, removeItem() {} } });
    await assert.rejects(back.connect(), { code: "INVALID_TOKEN" });
    assert.equal(back.state, "closed");
  },

  async every_failure_while_connecting_is_told() {
    const waits = patience(12_000);
    const storage = { getItem: (key) => (key.endsWith("channel") ? "a-channel" : null), setItem() {}, removeItem() {} };
    const other = createServer((request, response) => response.writeHead(request.url.startsWith("/page") ? 200 : 501).end("<p>"));
    await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
    const elsewhere = `http://127.0.0.1:${other.address().port}`;
    globalThis.location = { origin: "https://app.example" };
    const fault = new TypeError("the app's own");
    const wsToken = () => ({ token: "any", expires_in: 3600 });
    const throws = () => {
      throw fault;
    };
    for (const [options, error, now] of [
      [{ accessToken: throws }, fault, true],
      [{ wsToken: throws }, fault, true],
      [{ wsToken: () => undefined }, { name: "TypeError" }, true],
      [{ url: "http://127.0.0.1:1" }, { code: "UNREACHABLE", message: /127\.0\.0\.1:1\/api.*PAIRING_ALLOWED_ORIGINS must have https:\/\/app\.example/ }],
      [{ url: elsewhere }, { code: "INTERNAL", status: 501, message: /127.*501/ }],
      [{ url: `${elsewhere}/page` }, { code: "INTERNAL", status: 200 }],
      [{ url: `${base}/nowhere`, wsToken }, { code: "UNREACHABLE", message: /nowhere\/ws.*PAIRING_ALLOWED_ORIGINS/ }],
      [{ accessToken: () => "✓" }, { name: "TypeError", message: /ByteString/ }, true],
      [{ wsToken: () => ({ token: "a b", expires_in: 3600 }) }, { name: "SyntaxError" }, true],
      [{ wsToken, webSocket: {} }, { name: "TypeError", message: /constructor/ }, true],
      [{ wsToken, url: "pair.example" }, { name: "TypeError" }, true],
    ]) {
      const client = device("desktop", { storage, ...options });
      let told;
      client.on("error", (wrong, { retryAt }) => (told = { error: wrong, retryAt }));
      const connecting = client.connect();
      connecting.catch(() => {});
      await until("told", client, () => told);
      assert(!now === (client.lastError.error.retryable === true));
      if (!now) waits.end();
      await assert.rejects(connecting, error);
      assert.deepEqual([client.state, told], ["connecting", client.lastError]);
      assert(told.retryAt instanceof Date);
      if (!now) assert(told.error.cause);
      client.close();
      assert.equal(client.lastError.retryAt, null);
    }
    delete globalThis.location;
    const nowhere = device("desktop", { storage, url: undefined });
    for (const act of [nowhere.connect(), nowhere.generateCode()]) await assert.rejects(act, { name: "TypeError", message: /Give the server's url/ });
    nowhere.close();
    // Older browsers and React Native have no such thing.
    delete AbortSignal.timeout;
    const { desktop, phone } = await pair();
    assert.equal(desktop.lastError, null);
    await desktop.connect();
    other.close();
    return [desktop, phone];
  },

  // The server of this story admits one connection of a user.
  async whom_the_server_has_no_room_for_is_told() {
    const desktop = device("desktop");
    const { code } = await desktop.generateCode();
    await desktop.connect();
    const waits = patience(12_000);
    const phone = device("mobile");
    const pairing = phone.pair(code);
    pairing.catch(() => {});
    await until("told", phone, () => phone.told.errors.length);
    assert.deepEqual(phone.told.errors, ["RATE_LIMITED"]);
    assert.equal(phone.state, "connecting");
    waits.end();
    await assert.rejects(pairing, { code: "RATE_LIMITED" });
    desktop.close();
    await phone.connect();
    assert.equal(phone.lastError, null);
    return phone;
  },

  async a_session_elsewhere_takes_over_and_the_old_one_stops() {
    const kept = new Map();
    const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
    const { desktop, phone } = await pair({ phone: { storage } });
    const again = device("mobile", { storage });
    await again.connect();
    await until("replaced", phone, () => phone.state === "closed");
    assert.deepEqual(phone.told.states.at(-1), ["closed", "SESSION_REPLACED"]);
    assert.equal(again.state, "paired");
    await say(desktop, [1]);
    await heard(again, [1]);
    return [desktop, again];
  },

  async unpairing_ends_it_for_both_and_is_forgotten() {
    const { desktop, phone } = await pair();
    await phone.unpair();
    await until("closed", desktop, () => desktop.state === "closed");
    for (const client of [desktop, phone]) {
      assert.deepEqual([client.state, client.channel, client.told.errors], ["closed", null, []]);
      await assert.rejects(client.connect(), { code: "NOT_IN_CHANNEL" });
    }
    assert.deepEqual(desktop.told.left, [true]);
    const { code } = await desktop.generateCode();
    await phone.pair(code);
    await until("paired anew", [desktop, phone], () => desktop.state === "paired" && phone.state === "paired");
    return [desktop, phone];
  },

  async unpairing_without_a_connection_waits_for_one() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    last().lose();
    await phone.unpair();
    await until("closed", desktop, () => desktop.state === "closed");
    return [desktop, phone];
  },

  async closing_rejects_what_waits_and_connecting_comes_back() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    last().lose();
    const waiting = phone.send({ n: 1 });
    phone.close();
    await assert.rejects(waiting, { code: "CLOSED" });
    assert.equal(phone.state, "closed");
    await until("alone", desktop, () => desktop.state === "waiting" || desktop.state === "paired");
    await say(desktop, [1]);
    await phone.connect();
    await heard(phone, [1]);
    return [desktop, phone];
  },

  async a_second_code_makes_the_first_void_on_the_same_connection() {
    const desktop = device("desktop");
    const first = await desktop.generateCode();
    await desktop.connect();
    const second = await desktop.generateCode();
    assert.notEqual(first.code, second.code);
    await desktop.connect();
    const phone = device("mobile");
    await assert.rejects(phone.pair(first.code), { code: "INVALID_CODE" });
    await phone.pair(second.code);
    await until("paired", [desktop, phone], () => desktop.state === "paired" && phone.state === "paired");
    assert(!desktop.told.states.some((state) => state[0] === "closed"));
    assert.equal(got(desktop, "connected").length, 1);
    return [desktop, phone];
  },

  // The code lives for a second.
  async a_code_that_expires_closes_the_desktop() {
    const desktop = device("desktop");
    await desktop.generateCode();
    await until("closed", desktop, () => desktop.state === "closed");
    assert.deepEqual(desktop.told.states.at(-1), ["closed", "INVALID_CHANNEL"]);
    assert.equal(desktop.channel, null);
  },

  async what_it_does_not_know_disturbs_nothing_and_is_an_event() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    const heardOf = [];
    phone.on("weather_report", (message) => heardOf.push(message.sun));
    last().onmessage({ data: '{"type":"weather_report","sun":true}' });
    last().onmessage({ data: '{"type":"another"}' });
    await say(desktop, [1]);
    await heard(phone, [1]);
    assert.deepEqual(heardOf, [true]);
    return [desktop, phone];
  },

  async audio_goes_as_it_is_and_only_live() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    assert.equal(phone.sendAudio(new Uint8Array([1, 2, 3]), { format: "audio/webm;codecs=opus", chunkId: "c-1", sampleRate: 48_000 }), true);
    assert.equal(phone.sendAudio(new Blob(["abc"])), true);
    assert.equal(phone.sendAudio("AAEC", { format: "webm" }), true);
    await until("audio", desktop, () => desktop.told.audio.length === 3);
    const [first, second, third] = desktop.told.audio;
    assert.deepEqual({ ...first, data: [...first.data] }, { data: [1, 2, 3], chunkId: "c-1", format: "audio/webm;codecs=opus", sampleRate: 48_000, seq: 1 });
    assert.deepEqual([...second.data], [97, 98, 99]);
    assert.deepEqual([...third.data], [0, 1, 2]);
    last().lose();
    assert.equal(phone.sendAudio(new Uint8Array(3)), false);
    return [desktop, phone];
  },

  async settings_of_one_task_are_one_message_and_only_what_differs() {
    const { desktop, phone } = await pair();
    for (let gain = 0; gain < 50; gain += 1) desktop.syncSettings({ gain, voice: true });
    await until("settings", phone, () => phone.settings.gain === 49);
    desktop.syncSettings({ gain: 50, voice: true });
    await until("settings", phone, () => phone.settings.gain === 50);
    assert.deepEqual(sent(desktop, "settings_sync").map(({ settings }) => settings), [{ gain: 49, voice: true }, { gain: 50 }]);
    assert.deepEqual(phone.told.settings.map(({ changed }) => changed), [["gain", "voice"], ["gain"]]);
    return [desktop, phone];
  },

  async settings_that_are_sent_back_as_they_came_go_nowhere() {
    const { desktop, phone } = await pair();
    // What the original handlers do: apply, and sync whatever there is.
    for (const client of [desktop, phone]) client.on("settings", ({ settings }) => client.syncSettings({ ...settings }));
    desktop.syncSettings({ gain: 1 });
    await until("settings", phone, () => phone.settings.gain === 1);
    await say(phone, [1]);
    await heard(desktop, [1]);
    assert.equal(sent(phone, "settings_sync").length, 0);
    assert.equal(sent(desktop, "settings_sync").length, 1);
    return [desktop, phone];
  },

  async a_setting_goes_back_to_what_it_was_just_before() {
    const { desktop, phone } = await pair();
    phone.syncSettings({ gain: 50 });
    await until("50", desktop, () => desktop.settings.gain === 50);
    desktop.syncSettings({ gain: 55 });
    await until("55", phone, () => phone.settings.gain === 55);
    desktop.syncSettings({ gain: 50 });
    await until("50 again", phone, () => phone.settings.gain === 50);
    return [desktop, phone];
  },

  async settings_that_were_edited_while_away_hold() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    desktop.syncSettings({ gain: 1, language: "nl" });
    await until("settings", phone, () => phone.settings.language === "nl");
    last().lose();
    phone.syncSettings({ gain: 2 });
    desktop.syncSettings({ language: "de" });
    // The edits may cross; then the server settles what either has undone with the other's.
    const hold = ({ settings }) => settings.gain === 2 && settings.language === "de";
    await until("both hold", [desktop, phone], () => hold(desktop) && hold(phone));
    assert.deepEqual(Object.keys(desktop.settings).sort(), ["gain", "language"]);
    return [desktop, phone];
  },

  async an_edit_whose_arrival_is_unknown_is_sent_again() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    last().deaf = true;
    phone.syncSettings({ gain: 9 });
    await until("sent", phone, () => sent(phone, "settings_sync").length === 1);
    last().lose();
    await until("arrived", desktop, () => desktop.settings.gain === 9);
    return [desktop, phone];
  },

  async a_setting_that_cannot_be_shared_is_named_and_all_others_go() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ desktop: { webSocket: Breakable } });
    const refused = [];
    desktop.on("settings-refused", ({ key, reason }) => refused.push(`${key.slice(0, 5)} ${reason}`));
    const cycle = {};
    cycle.self = cycle;
    const nested = (levels) => (levels ? [nested(levels - 1)] : 1);
    const unfit = { when: new Date(), map: new Map(), set: new Set(), nan: NaN, act() {}, big: 1n, cycle, inner: { of: [new Date()] } };
    const edit = { note: "é".repeat(8500), deep: nested(16), "": 1, ["k".repeat(129)]: 1, ...unfit, fine: nested(15), gain: 1, missing: undefined };
    desktop.syncSettings(edit);
    desktop.syncSettings(edit);
    await until("the others", phone, () => phone.settings.gain === 1);
    assert.deepEqual(phone.settings, { fine: nested(15), gain: 1 });
    const named = ["note too_large", "deep too_deep", " invalid_key", "kkkkk invalid_key", ...Object.keys(unfit).map((key) => `${key} not_json`)];
    assert.deepEqual(refused.splice(0), named);
    // Nothing is undone when it comes back, and what has changed goes.
    last().lose();
    desktop.offerSettings(edit);
    desktop.syncSettings({ ...edit, gain: 2, note: "short" });
    await until("back", [desktop, phone], () => phone.settings.note === "short");
    assert.equal(desktop.settings.gain, 2);
    // Keys of the other device count, too.
    phone.syncSettings({ theirs: 1 });
    await until("theirs", desktop, () => desktop.settings.theirs);
    desktop.syncSettings(Object.fromEntries(Array.from({ length: 61 }, (_, n) => [`key${n}`, n])));
    await until("64", phone, () => Object.keys(phone.settings).length === 64);
    assert.deepEqual(refused, ["key60 too_many"]);
    assert.deepEqual([...desktop.told.errors, ...phone.told.errors], []);
    return [desktop, phone];
  },

  async a_second_phone_gets_nothing_that_only_the_first_one_had() {
    const { desktop, phone } = await pair();
    desktop.offerSettings({ gain: 50 });
    phone.syncSettings({ gain: 3, contact: "of the first" });
    const { gain } = await until("contact", desktop, () => desktop.settings.contact && desktop.settings);
    const { code } = await desktop.generateCode();
    assert.deepEqual(desktop.settings, { gain });
    const second = device("mobile");
    await second.pair(code);
    await until("gain", second, () => second.settings.gain);
    assert.deepEqual(second.settings, { gain });
    return [desktop, phone, second];
  },

  async offered_settings_fill_only_what_nobody_has_set() {
    const desktop = device("desktop");
    const phone = device("mobile");
    desktop.offerSettings({ gain: 50, language: "nl" });
    phone.offerSettings({ gain: 20, theme: "dark" });
    const { code } = await desktop.generateCode();
    await until("offered", desktop, () => sent(desktop, "settings_sync").length);
    await phone.pair(code);
    await until("filled", desktop, () => desktop.settings.theme === "dark");
    assert.deepEqual(desktop.settings, { gain: 50, language: "nl", theme: "dark" });
    assert.deepEqual(phone.settings, { gain: 50, language: "nl", theme: "dark" });
    return [desktop, phone];
  },

  async an_offer_never_undoes_an_edit_that_it_crosses() {
    const { desktop, phone } = await pair();
    phone.syncSettings({ gain: 7 });
    desktop.offerSettings({ gain: 50, language: "nl" });
    const agree = () => [desktop, phone].every(({ settings }) => settings.gain === 7 && settings.language === "nl");
    await until("both have the edit", [desktop, phone], agree);
    return [desktop, phone];
  },

  // The server of this story sees an attack in a single wrong code, and admits any account.
  async while_the_server_is_attacked_the_desktop_is_asked() {
    const desktop = device("desktop");
    const asked = [];
    desktop.on("pairing-request", (about) => {
      asked.push(about.expiresIn > 0);
      desktop.answerRequest(true);
    });
    const { code } = await desktop.generateCode();
    await desktop.connect();
    const phone = device("mobile", { accessToken: () => given.other });
    const told = [];
    phone.on("confirmation-needed", ({ expiresIn }) => told.push(expiresIn > 0));
    await assert.rejects(phone.pair(String((Number(code) + 1) % 1e6).padStart(6, "0")), { code: "INVALID_CODE" });
    await phone.pair(code);
    await until("paired", [desktop, phone], () => desktop.state === "paired" && phone.state === "paired");
    assert.deepEqual(asked, [true]);
    // It asks every two seconds, and is told so each time until the desktop's word is there.
    assert(told.length && told.every(Boolean));
    // Too late for another answer, which changes nothing.
    desktop.answerRequest(false);
    await until("told so", desktop, () => desktop.told.errors.length);
    assert.equal(desktop.state, "paired");
    return [desktop, phone];
  },

  async who_is_not_wanted_by_the_desktop_stays_out() {
    const desktop = device("desktop");
    desktop.on("pairing-request", () => desktop.answerRequest(false));
    const { code } = await desktop.generateCode();
    await desktop.connect();
    const phone = device("mobile", { accessToken: () => given.other });
    await assert.rejects(phone.pair(String((Number(code) + 1) % 1e6).padStart(6, "0")), { code: "INVALID_CODE" });
    await assert.rejects(phone.pair(code), { code: "INVALID_CODE" });
    await until("closed", desktop, () => desktop.state === "closed");
    assert.deepEqual(desktop.told.states.at(-1), ["closed", "INVALID_CHANNEL"]);
  },

  async each_close_code_is_handled_as_the_protocol_says() {
    const { Breakable, last } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    for (const [number, what] of given.codes) {
      if (number === 4429) continue; // a story of its own
      last().lose(number);
      if (what === "stop" || what === "pair again") {
        assert.equal(phone.state, "closed", number);
        if (what === "pair again") assert.equal(phone.channel, null);
        else await phone.connect();
      } else {
        assert.equal(phone.state, "reconnecting", number);
        await until(`back after ${number}`, phone, () => phone.state === "paired");
      }
    }
    return desktop;
  },

  async who_was_over_a_rate_does_not_come_back_within_ten_seconds() {
    const { Breakable, last, sockets } = breakable();
    const { desktop, phone } = await pair({ phone: { webSocket: Breakable } });
    const dialled = sockets.length;
    const [pause, ...others] = kept(() => last().lose(4429));
    assert.deepEqual(others, []);
    assert(pause.ms >= 10_000, `it waits for ${pause.ms} ms`);
    assert.equal(phone.state, "reconnecting");
    assert.equal(sockets.length, dialled);
    pause.end();
    await until("back", phone, () => phone.state === "paired");
    assert.equal(sockets.length, dialled + 1);
    await say(desktop, [1]);
    await heard(phone, [1]);
    return [desktop, phone];
  },

  async a_listener_that_fails_does_not_stop_the_others() {
    const { desktop, phone } = await pair();
    const faults = [];
    process.on("uncaughtException", (error) => {
      if (error.message !== "the listener's own") throw error;
      faults.push(error.message);
    });
    phone.on("message", () => {
      throw new Error("the listener's own");
    });
    const after = [];
    const off = phone.on("message", ({ payload }) => after.push(payload.n));
    await say(desktop, [1]);
    await until("heard", phone, () => after.length);
    off();
    await say(desktop, [2]);
    await until("heard", phone, () => phone.told.messages.length === 2);
    while (faults.length < 2) await new Promise(setImmediate);
    assert.deepEqual(after, [1]);
    return [desktop, phone];
  },
});

// Runs the sample clients of the original specification against a running server.
//
// Standard input: {story, base, token, samples}, the samples as they stand in docs/protocol.md without their
// types. What the samples leave to the application (login, callbacks, React, Zustand) is here, and only that.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { isDeepStrictEqual } from 'node:util';

const { story, base, token, samples } = JSON.parse(await text(process.stdin));

// The samples name a host of their own, as a page of the server would.
const fetchHere = (path, options) => fetch(base + path, options);
class SocketHere extends WebSocket {
  constructor(url) {
    super(url.replace('ws://localhost:8089', base.replace('http', 'ws')));
  }
}

// The value of the last expression of some samples, with what is free in them handed in.
const run = (names, result, free) =>
  new Function(...Object.keys(free), `${names.map((n) => samples[n]).join('\n')}\nreturn ${result};`)(
    ...Object.values(free),
  );

// Zustand's create, as far as the sample uses it.
const create = (initialise) => {
  let state;
  const set = (changes) => (state = { ...state, ...changes });
  const get = () => state;
  state = initialise(set, get);
  return { getState: get };
};

const waiting = new Set();
const look = () => waiting.forEach((check) => check());
const until = (what, predicate) =>
  new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`never: ${what}`)), 60_000);
    const check = () => {
      if (!predicate()) return;
      clearTimeout(late);
      waiting.delete(check);
      resolve();
    };
    waiting.add(check);
    check();
  });

// What the application adds to a service: who it is, its ws token (kept), and what it does on events.
const application = (Service, tokenPath) =>
  class extends Service {
    authToken = token;
    sessionId = randomUUID();
    seen = [];

    async getWebSocketToken() {
      this.wsToken ??= (
        await (
          await fetchHere(tokenPath, {
            method: 'POST',
            headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` },
            body: '{"username": "optional"}',
          })
        ).json()
      ).token;
      return this.wsToken;
    }

    handleMessage(message) {
      this.seen.push(message);
      super.handleMessage?.(message);
      look();
    }

    // The phone's sample uses it without showing it; the desktop's has it.
    send(message) {
      if (super.send) super.send(message);
      else if (this.ws?.readyState === SocketHere.OPEN) this.ws.send(JSON.stringify(message));
    }

    onPairingSuccess() {
      this.success = true;
    }

    onMobileDisconnected() {
      this.alone = true;
    }

    handleChannelMessage(payload) {
      this.payload = payload;
    }

    has(type) {
      return this.seen.some((message) => message.type === type);
    }
  };

const updates = [];
const usePairingStore = { getState: () => ({ updateSettings: (settings) => updates.push(settings) }) };
const free = { fetch: fetchHere, WebSocket: SocketHere, usePairingStore };
const Desktop = application(
  run(['original-desktop-pairing-service'], 'PairingService', free),
  '/api/auth/ws-token',
);
const Phone = application(
  run(['original-mobile-pairing-service'], 'MobilePairingService', free),
  '/api/auth/ws-token-mobile',
);

const pair = async () => {
  const desktop = new Desktop();
  const phone = new Phone();
  const code = await desktop.generatePairingCode();
  assert.match(code, /^[0-9]{6}$/);
  await desktop.connectWebSocket();
  assert.equal(await phone.pairWithDesktop(code), true);
  await until('pairing_success', () => desktop.success && phone.has('pairing_success'));
  return { desktop, phone };
};

const stories = {
  async services() {
    const { desktop, phone } = await pair();
    desktop.syncState('audioSettings', { audioGain: 75 });
    await until('channel_message', () => phone.has('channel_message'));
    assert.deepEqual(phone.seen.find((m) => m.type === 'channel_message').payload, {
      action: 'STATE_UPDATE',
      stateType: 'audioSettings',
      data: { audioGain: 75 },
    });
    phone.sendAudioChunk('UklGRg==');
    await until('audio_chunk', () => desktop.has('audio_chunk'));
    phone.syncSettings({ audioGain: 10 });
    await until('settings_sync', () => updates.length > 0);
    assert.deepEqual(updates, [{ audioGain: 10 }]);

    phone.ws.close();
    await until('mobile_disconnected', () => desktop.alone);
    phone.seen.length = 0;
    await phone.connectWebSocket(); // with the same ws token
    await until('pairing_success again', () => phone.has('pairing_success'));
    phone.syncSettings({ audioGain: 20 });
    await until('settings_sync again', () => updates.length > 1);
    assert.deepEqual(updates.at(-1), { audioGain: 20 });
    assert(!desktop.has('error') && !phone.has('error'));
    return [desktop.ws, phone.ws];
  },

  async hook() {
    // The hook calls both services by one name.
    const made = [];
    class PairingService extends Desktop {
      constructor() {
        super();
        this.phone = new Phone();
        made.push(this);
      }
      pairWithDesktop(code) {
        return this.phone.pairWithDesktop(code);
      }
    }
    const state = {};
    let names;
    const useState = (initial) => {
      const name = names.shift();
      state[name] = initial;
      return [initial, (value) => (state[name] = value)];
    };
    names = ['isConnected', 'isPaired', 'pairingCode'];
    const usePairing = run(['original-use-pairing'], 'usePairing', {
      useState,
      useMemo: (factory) => factory(),
      PairingService,
    });
    const hook = usePairing();
    await hook.generateCode();
    assert.equal(state.isConnected, true);
    assert.equal(await hook.pairWithCode(state.pairingCode), true);
    assert.equal(state.isPaired, true);
    const [{ phone }] = made;
    await until('pairing_success', () => made[0].success && phone.has('pairing_success'));
    hook.syncZustandState('audioSettings', { audioGain: 5 });
    await until('channel_message', () => phone.has('channel_message'));
    assert.equal(await hook.pairWithCode('12'), false);
    return [made[0].ws, phone.ws];
  },

  async stores() {
    const { desktop, phone } = await pair();
    let messages = 0;
    const stores = [desktop, phone].map((service) => {
      const found = run(
        ['original-zustand-store', 'original-message-handler'],
        '{ usePairingStore, handleWebSocketMessage }',
        { create, webSocket: service.ws },
      );
      // What came before the store was there.
      service.seen.forEach((message) =>
        found.handleWebSocketMessage({ data: JSON.stringify(message) }),
      );
      service.ws.onmessage = (event) => {
        messages += 1;
        found.handleWebSocketMessage(event);
        look();
      };
      return found.usePairingStore;
    });
    const [here, there] = stores.map((store) => store.getState);
    assert(here().isPaired && here().channelId === there().channelId);
    const both = (wanted) => () =>
      isDeepStrictEqual(here().audioSettings, there().audioSettings) &&
      Object.entries(wanted).every(([key, value]) => here().audioSettings[key] === value);
    // By turns, until the server knows both for clients that send back what they get, be it late.
    for (let turn = 1; turn <= 4; turn += 1) {
      there().updateAudioSettings({ overlapPercent: 16 + turn });
      await until(`turn ${turn} of the phone`, both({ overlapPercent: 16 + turn }));
      here().updateAudioSettings({ chunkDuration: turn });
      await until(`turn ${turn} of the desktop`, both({ chunkDuration: turn }));
    }
    // A slider on one side, a switch on the other, at the same time.
    for (let gain = 0; gain <= 20; gain += 1) here().updateAudioSettings({ audioGain: gain });
    there().updateAudioSettings({ vadEnabled: true });
    // The server settles crossed edits within a few seconds.
    const settled = both({ audioGain: 20, vadEnabled: true, overlapPercent: 20, chunkDuration: 4 });
    await until('equal stores', settled);
    // Silence cannot be waited for but by waiting.
    for (let before = -1; before !== messages; ) {
      before = messages;
      await new Promise((resolve) => setTimeout(resolve, 800));
      assert(messages < 300, 'the stores never stop talking');
    }
    await until('equal stores for good', settled);
    return [desktop.ws, phone.ws];
  },
};

const sockets = await stories[story]();
sockets.forEach((socket) => socket.close());
console.log(JSON.stringify({ story, done: true }));

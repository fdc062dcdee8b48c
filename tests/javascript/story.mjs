// What the stories of this folder are told with. runner.mjs runs one story of a file in a thread, which passes if it ends
// without an error.
import assert from "node:assert/strict";
import { once } from "node:events";
import { parentPort, workerData } from "node:worker_threads";
import { PairingClient } from "../../pairing_server/static/client/pairing.js";

export { assert, PairingClient };

const { story, given } = workerData;
export { given };
export const { base, token } = given;

/** Milliseconds after which something counts as never coming: less than the whole test may take, so that it is said what. */
const PATIENCE = 60_000;

/** Let the test do something to the server, and wait until it has. */
export async function ask(what) {
  const answer = once(parentPort, "message");
  parentPort.postMessage({ ask: what });
  await answer;
}

/** Resolves with what `find` gives once that is true; it is asked again at each of the clients' events. */
export function until(what, clients, find) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`never: ${what}`)), PATIENCE);
    const stop = [];
    const look = () => {
      const found = find();
      if (!found) return;
      clearTimeout(late);
      stop.forEach((off) => off());
      resolve(found);
    };
    for (const client of [clients].flat()) {
      for (const event of ["state", "message", "settings", "audio", "gap", "error", "frame", "paired", "peer-joined", "peer-left"]) {
        // After the listeners that the story has set.
        stop.push(client.on(event, () => setTimeout(look)));
      }
    }
    look();
  });
}

/** A client and all that it was told. */
export function device(deviceType, options = {}) {
  const told = { messages: [], gaps: [], errors: [], states: [], frames: [], settings: [], audio: [], paired: 0, left: [] };
  const client = new PairingClient({ deviceType, url: base, accessToken: () => token, ...options });
  client.on("message", ({ payload }) => told.messages.push(payload.n));
  client.on("gap", (gap) => told.gaps.push(gap));
  client.on("error", (error) => told.errors.push(error.code));
  client.on("state", (state, why) => told.states.push(why ? [state, why.code] : state));
  client.on("settings", (about) => told.settings.push(about));
  client.on("audio", (chunk) => told.audio.push(chunk));
  client.on("paired", () => (told.paired += 1));
  client.on("peer-left", (about) => told.left.push(about.final));
  client.on("frame", ({ direction, text }) => text && told.frames.push([direction, JSON.parse(text)]));
  return Object.assign(client, { told });
}

/** What a device has sent of that type. */
export const sent = (client, type) => client.told.frames.filter(([way, frame]) => way === "out" && frame.type === type).map(([, frame]) => frame);
export const got = (client, type) => client.told.frames.filter(([way, frame]) => way === "in" && frame.type === type).map(([, frame]) => frame);

/** Two devices that have met. */
export async function pair(options = {}) {
  const desktop = device("desktop", options.desktop);
  const phone = device("mobile", options.phone);
  const { code } = await desktop.generateCode();
  await desktop.connect(); // so that it is the first
  await phone.pair(code);
  await until("paired", [desktop, phone], () => desktop.state === "paired" && phone.state === "paired");
  return { desktop, phone, code };
}

/** A WebSocket whose connection the story can break, or whose frames it can keep back. */
export function breakable() {
  const sockets = [];
  class Breakable extends WebSocket {
    deaf = false;

    constructor(...given) {
      super(...given);
      sockets.push(this);
    }

    send(data) {
      if (!this.deaf) super.send(data);
    }

    /** As a network does: the client is told, the server not. Or as a server does, with a close code of its own. */
    lose(code = 1006) {
      this.deaf = true;
      const { onclose } = this;
      this.onmessage = this.onclose = null;
      onclose({ code });
    }
  }
  return { Breakable, sockets, last: () => sockets.at(-1) };
}

/** What `act` leaves for later: for how many milliseconds, and `end()`, with which the time is over. Nothing of it comes by itself. */
export function kept(act) {
  const timers = [];
  const { setTimeout: real } = globalThis;
  globalThis.setTimeout = (end, ms) => {
    timers.push({ end, ms });
  };
  try {
    act();
  } finally {
    globalThis.setTimeout = real;
  }
  return timers;
}

/** From now on waits of that many milliseconds do not end by themselves: `end()` ends all that are not cleared by then. */
export function patience(length) {
  const waits = new Map();
  const { setTimeout: real, clearTimeout: clear } = globalThis;
  globalThis.setTimeout = (end, ms, ...rest) => {
    if (ms !== length) return real(end, ms, ...rest);
    const wait = {};
    waits.set(wait, end);
    return wait;
  };
  globalThis.clearTimeout = (timer) => waits.delete(timer) || clear(timer);
  return {
    end() {
      const due = [...waits.values()];
      waits.clear();
      due.forEach((end) => end());
    },
  };
}

export async function tell(stories) {
  const client = await stories[story]();
  for (const one of [client ?? []].flat()) one.close();
  parentPort.postMessage({ done: true });
}

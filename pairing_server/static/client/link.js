/** One connection that comes back: it dials, pings, waits and dials again. It knows close codes, but no channels. */

import { unreachable } from "./errors.js";

/** Milliseconds from dialling until the channel must be joined. */
const PATIENCE = 10_000;
const PONG_WITHIN = 8_000;
/** The same when there is reason to doubt the connection. */
const PROBE_WITHIN = 4_000;
const LONGEST_PAUSE = 30_000;
const PAUSE_OVER_RATE = 10_000;

/** After these close codes a client does not come back by itself. */
const FINAL = [1000, 1002, 1007, 1009, 4400, 4403, 4409, 4410];
const TOKEN_REFUSED = 4401;
const OVER_RATE = 4429;

/** A page that was asleep, or whose network is back. */
const WAKING = ["online", "offline", "pageshow", "focus"];
const WAKING_DOCUMENT = ["visibilitychange", "resume"];

export class Link {
  latency = null;
  #given;
  #socket = null;
  #running = false;
  #pausing = false;
  #turn = 0;
  #attempt = 0;
  #dialled = 0;
  #refused = false;
  #opened = false;
  #sequence = 0;
  #pings = new Map();
  #timers = {};

  /**
   * `url()`, by http; `dial(url, token)` gives a WebSocket, `heartbeat` (ms). `token(refused)` promises one. `opened()`, `received(message)`,
   * `heard(buffer)`, `lost(error, retryAt)` (it will come back; no error if it does at once), `ended(code | error)` (it will not),
   * `seen(direction, data)`.
   */
  constructor(given) {
    this.#given = given;
  }

  get open() {
    return this.#socket?.readyState === 1;
  }

  get buffered() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Dial, or do not wait any longer for the next try. */
  start() {
    if (!this.#running) this.#listen("addEventListener");
    else if (!this.#pausing) return;
    this.#running = true;
    this.#attempt = 0;
    this.#dial();
  }

  stop() {
    this.#running = false;
    this.#listen("removeEventListener");
    this.#hangUp();
  }

  /** It has reached what it was dialled for. */
  settled() {
    clearTimeout(this.#timers.patience);
    this.#attempt = 0;
    this.ping();
  }

  /** Text from an object, or a binary frame as it is. `shown`: what may be seen of it. False if there is no connection. */
  send(message, shown = message) {
    if (!this.open) return false;
    const binary = message instanceof Blob;
    this.#socket.send(binary || typeof message === "string" ? message : JSON.stringify(message));
    this.#given.seen("out", binary || typeof shown === "string" ? shown : JSON.stringify(shown));
    return true;
  }

  /** `done()`: the server has seen all that was sent before, and all that it sent before has been received. */
  ping(done, within = PONG_WITHIN) {
    const sequence = ++this.#sequence;
    if (!this.send({ type: "ping", sequence })) return;
    this.#pings.set(sequence, { at: performance.now(), done });
    this.#timers.pong ??= setTimeout(() => this.#break("no pong"), within);
  }

  /** Give the connection up for that reason and try again, after `least` milliseconds or more. */
  fail(error, least = 0) {
    this.#hangUp();
    if (!this.#running) return;
    const pause = Math.max(least, Math.random() * Math.min(LONGEST_PAUSE, 1000 * 2 ** this.#attempt++));
    this.#pausing = true;
    this.#timers.pause = setTimeout(() => this.#dial(), pause);
    this.#given.lost(error, new Date(Date.now() + pause));
  }

  #break(cause, least) {
    this.fail(unreachable(this.#given.url(), cause, this.#opened), least);
  }

  async #dial() {
    this.#hangUp();
    const turn = this.#turn;
    const current = (act) => (event) => turn === this.#turn && act(event);
    this.#dialled = Date.now();
    this.#timers.patience = setTimeout(() => this.#break("no answer in time"), PATIENCE);
    let socket;
    try {
      const token = await this.#given.token(this.#refused);
      if (turn !== this.#turn) return;
      // Unless a socket can be made with this token, the next one is another.
      this.#refused = true;
      socket = this.#given.dial(this.#given.url(), token);
      this.#refused = false;
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error?.retryable === false) this.#end(error);
      else this.fail(error, 1000 * (error?.retryAfter || 0));
      return;
    }
    socket.binaryType = "arraybuffer";
    socket.onopen = current(() => {
      this.#opened = true;
      this.#given.opened();
    });
    socket.onmessage = current(({ data }) => this.#receive(data));
    socket.onclose = current(({ code }) => this.#closed(code));
    // Not every runtime says that a connection that never opened has closed.
    socket.onerror = current((event) => this.#break(event.error ?? event));
    this.#socket = socket;
  }

  #receive(data) {
    this.#given.seen("in", data);
    if (typeof data !== "string") return this.#given.heard(data);
    const message = JSON.parse(data);
    if (message.type === "pong") this.#pong(message.sequence);
    else this.#given.received(message);
  }

  #pong(sequence) {
    const ping = this.#pings.get(sequence);
    if (!ping) return;
    this.#pings.delete(sequence);
    this.latency = performance.now() - ping.at;
    clearTimeout(this.#timers.pong);
    this.#timers.pong = this.#pings.size ? setTimeout(() => this.#break("no pong"), PONG_WITHIN) : undefined;
    clearTimeout(this.#timers.heart);
    this.#timers.heart = setTimeout(() => this.ping(), this.#given.heartbeat);
    ping.done?.();
  }

  #closed(code) {
    if (FINAL.includes(code)) return this.#end(code);
    this.#refused = code === TOKEN_REFUSED;
    if (!this.#refused || this.#attempt) return this.#break(`close code ${code}`, code === OVER_RATE ? PAUSE_OVER_RATE : 0);
    this.#attempt += 1;
    this.#dial();
    this.#given.lost();
  }

  #end(why) {
    this.stop();
    this.#given.ended(why);
  }

  #hangUp() {
    this.#turn += 1;
    this.#pausing = false;
    Object.values(this.#timers).forEach(clearTimeout);
    this.#timers = {};
    this.#pings.clear();
    this.latency = null;
    this.#socket?.close(1000);
    this.#socket = null;
  }

  #listen(how) {
    for (const name of WAKING) globalThis[how]?.(name, this.#wake);
    for (const name of WAKING_DOCUMENT) globalThis.document?.[how](name, this.#wake);
  }

  /** Do not wait for timers that sleep has made late. */
  #wake = ({ type }) => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#timers.pong) return;
    if (this.#timers.heart) this.ping(undefined, PROBE_WITHIN);
    else if (type !== "offline" && (this.#pausing || Date.now() - this.#dialled > PROBE_WITHIN)) {
      this.#attempt = 0;
      this.#dial();
    }
  };
}

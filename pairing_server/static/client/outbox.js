/** What this device has to say, until the server has acknowledged it: in order, bounded, and no faster than the server takes it. */

import { PairingError } from "./errors.js";

const MESSAGES_KEPT = 256;
const BYTES_KEPT = 1 << 20;
const LARGEST = 64 * 1024;
/** A little less than a connection may send: 60 a second, 120 at once. */
const RATE = 50;
const BURST = 100;

export const bytes = (text) => new TextEncoder().encode(text).length;

export class Outbox {
  #waiting = [];
  #size = 0;
  #number = 0;
  #name;
  #post;
  #urgent;
  #channel = null;
  #rate = RATE;
  #tokens = BURST;
  #at = 0;
  #timer;
  #due = false;

  /** `name`: what ids begin with. `post(text)` sends a message, `urgent()` what goes first; both say whether they have. */
  constructor(name, post, urgent) {
    this.#name = name;
    this.#post = post;
    this.#urgent = urgent;
  }

  get length() {
    return this.#waiting.length;
  }

  /** Resolves with the ack: the channel has taken it. */
  push(payload) {
    const text = JSON.stringify(payload);
    if (text?.[0] !== "{") return Promise.reject(new TypeError("A payload is an object."));
    const size = bytes(text) + 256;
    if (size > LARGEST) {
      const details = { limit: LARGEST, size };
      return Promise.reject(new PairingError("PAYLOAD_TOO_LARGE", "Too large. Send less at once.", { details }));
    }
    if (this.#waiting.length >= MESSAGES_KEPT || this.#size + size > BYTES_KEPT) {
      return Promise.reject(new PairingError("QUEUE_FULL", "Too much waits to be sent. Try again.", { retryable: true }));
    }
    return new Promise((resolve, reject) => {
      const id = `${this.#name}.${++this.#number}`;
      this.#waiting.push({ id, text, size, sent: false, again: false, resolve, reject });
      this.#size += size;
      this.schedule();
    });
  }

  /** The channel is joined, on a connection of its own: what has no ack goes again. */
  begin(channel) {
    this.#rate = RATE;
    this.#tokens = BURST;
    this.#resume(channel);
  }

  #resume(channel) {
    this.pause();
    this.#channel = channel;
    this.#again(this.#waiting);
    this.#pump();
  }

  pause() {
    this.#channel = null;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Too fast: go on slower, after so many milliseconds, with whatever has no ack. */
  slow(ms) {
    const channel = this.#channel;
    if (!channel) return;
    this.pause();
    this.#rate = Math.max(1, this.#rate / 2);
    this.#tokens = 2;
    this.#timer = setTimeout(() => this.#resume(channel), ms);
  }

  /** Once the present task is done, so that a burst of settings is one message. */
  schedule() {
    if (this.#due) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      this.#pump();
    });
  }

  acked(id, seq) {
    const at = this.#waiting.findIndex((message) => message.id === id);
    if (at < 0) return;
    // Counted as taken now, for the server may have been held up until a moment ago.
    this.#refill();
    this.#tokens -= 1;
    this.#take(at).resolve({ id, seq });
    // The server answers in order: what was sent before and has no answer was not taken.
    const passed = this.#waiting.slice(0, at);
    this.#again(passed);
    if (passed.length) this.schedule();
  }

  /** True if the error is about one of these messages. Its promise is rejected, unless it can be sent again. */
  refused(id, error) {
    const at = this.#waiting.findIndex((message) => message.id === id);
    if (at < 0) return false;
    if (error.retryable) this.slow(error.details.retry_after_ms ?? 1000);
    else this.#take(at).reject(error);
    return true;
  }

  /** There is no channel any more. */
  clear(error) {
    this.pause();
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#size = 0;
  }

  #take(at) {
    const [message] = this.#waiting.splice(at, 1);
    this.#size -= message.size;
    return message;
  }

  #again(messages) {
    for (const message of messages) {
      message.again ||= message.sent;
      message.sent = false;
    }
  }

  #refill() {
    const now = performance.now();
    this.#tokens = Math.min(BURST, this.#tokens + ((now - this.#at) * this.#rate) / 1000);
    this.#at = now;
  }

  #pump() {
    if (!this.#channel || this.#timer) return;
    this.#refill();
    let room = this.#tokens - this.#waiting.filter(({ sent }) => sent).length;
    while (room >= 2) {
      if (this.#urgent()) {
        this.#tokens -= 2;
        room -= 2;
        continue;
      }
      const next = this.#waiting.find(({ sent }) => !sent);
      if (!next || !this.#post(this.#message(next))) return;
      next.sent = true;
      room -= 1;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#pump();
    }, 2000 / this.#rate);
  }

  #message({ id, text, again }) {
    return `{"type":"channel_message","channel":"${this.#channel}","id":"${id}"${again ? ',"again":true' : ""},"payload":${text}}`;
  }
}

/** The settings that both devices share, as this one holds them, and which of its edits the server may not have yet. */

import { bytes } from "./outbox.js";

/** What a server takes by default: keys, levels of a value, and the bytes of the document with what is around it in a message. */
const KEYS = 64;
const KEY_LENGTH = 128;
const LEVELS = 15;
const LARGEST = 16 * 1024 - 256;

export function isPlain(value) {
  if (typeof value !== "object" || !value) return false;
  const prototype = Object.getPrototypeOf(value);
  // An object of another frame has another Object.prototype.
  return !prototype || !Object.getPrototypeOf(prototype);
}

/** Functions of an object stay on this device, which finds their place again, but not within an array. */
function unfit(value, level, inArray) {
  if (value === null || Number.isFinite(value) || ["string", "boolean"].includes(typeof value)) return;
  const array = Array.isArray(value);
  if (!array && !isPlain(value)) return "not_json";
  if (level > LEVELS) return "too_deep";
  for (const each of array ? value : Object.values(value)) {
    const stays = !array && (each === undefined || (!inArray && typeof each === "function"));
    const reason = stays ? "" : unfit(each, level + 1, array || inArray);
    if (reason) return reason;
  }
}

/** The JSON text of a value, or the `reason` why it cannot be shared: its JSON would be another value, or none. */
export function jsonOf(value) {
  try {
    const text = JSON.stringify(value);
    const reason = unfit(value, 1);
    return reason ? { reason } : { text };
  } catch {
    return { reason: "not_json" };
  }
}

export class SharedSettings {
  values = Object.freeze({});
  #rev = null;
  #texts = new Map();
  #edited = new Set();
  /** Key → number of the message in which it went, until the server is known to have that. */
  #unsure = new Map();
  #number = 0;
  /** Keys of the channel's document. */
  #known = new Set();
  #fills = new Set();
  /** Keys that this device has set or offered itself. */
  #own = new Set();
  /** Key → what of it was refused: its JSON text, or the reason if it has none. */
  #refused = new Map();
  #refuse;

  /** `refuse(key, reason)` is told of each value that cannot be shared, once until it changes. */
  constructor(refuse) {
    this.#refuse = refuse;
  }

  /** Take what differs from what is held; the keys of that. */
  edit(settings) {
    const keys = this.#putOwn(settings);
    for (const key of keys) {
      this.#edited.add(key);
      this.#unsure.delete(key);
    }
    return keys;
  }

  /** Values for keys that neither device has set. */
  offer(settings) {
    for (const key of Object.keys(settings)) this.#own.add(key);
    const keys = this.#putOwn(Object.fromEntries(Object.entries(settings).filter(([key]) => !this.#texts.has(key))));
    for (const key of keys) this.#fills.add(key);
    return keys;
  }

  /** What to say of them now, and `sent()` to be called when the server has it; null if there is nothing. */
  next() {
    if (!this.#edited.size) return this.#fill();
    const number = ++this.#number;
    const settings = this.#taken(this.#edited);
    for (const key of Object.keys(settings)) this.#unsure.set(key, number);
    return {
      message: { settings, base_rev: this.#rev },
      sent: () => {
        for (const [key, last] of this.#unsure) if (last <= number) this.#unsure.delete(key);
      },
    };
  }

  /** The same of what this device holds and the document lacks. */
  #fill() {
    for (const key of this.#fills) if (this.#known.has(key) || this.#unsure.has(key)) this.#fills.delete(key);
    return this.#fills.size ? { message: { settings: this.#taken(this.#fills), fill: true } } : null;
  }

  #taken(keys) {
    const settings = Object.fromEntries([...keys].map((key) => [key, this.values[key]]));
    keys.clear();
    return settings;
  }

  /** The channel's document; the keys that are new to this device. */
  receive(document, rev) {
    this.#rev = rev;
    this.#known = new Set(Object.keys(document));
    return this.#put(document);
  }

  /** The same on joining: what was edited meanwhile, or may not have arrived, holds and goes again. */
  rejoin(document, rev) {
    for (const key of this.#unsure.keys()) this.#edited.add(key);
    this.#unsure.clear();
    const changed = this.receive(Object.fromEntries(Object.entries(document).filter(([key]) => !this.#edited.has(key))), rev);
    this.#known = new Set(Object.keys(document));
    for (const key of this.#texts.keys()) if (!this.#edited.has(key)) this.#fills.add(key);
    return changed;
  }

  /** Another channel: its document is the truth. It gets what is missing from here, but nothing that only the former device had. */
  reset() {
    const own = ([key]) => this.#own.has(key);
    this.#texts = new Map([...this.#texts].filter(own));
    this.values = Object.freeze(Object.fromEntries(Object.entries(this.values).filter(own)));
    this.#rev = null;
    this.#known.clear();
    this.#fills.clear();
    this.#edited.clear();
    this.#unsure.clear();
  }

  /** The same as `#put` for values of this device: what the server would refuse, together with all else, is left out. */
  #putOwn(settings) {
    return Object.entries(settings).flatMap(([key, value]) => {
      if (value === undefined) return [];
      const { text, reason = this.#excess(key, value) } = jsonOf(value);
      if (!reason) {
        this.#refused.delete(key);
        this.#own.add(key);
        return this.#put({ [key]: value });
      }
      const mark = text ?? reason;
      if (this.#refused.get(key) !== mark) {
        this.#refused.set(key, mark);
        this.#refuse(key, reason);
      }
      return [];
    });
  }

  /** What is too much if that is set. */
  #excess(key, value) {
    if (!key || [...key].length > KEY_LENGTH) return "invalid_key";
    if (this.#texts.size >= KEYS && !this.#texts.has(key)) return "too_many";
    return bytes(JSON.stringify({ ...this.values, [key]: value })) > LARGEST ? "too_large" : undefined;
  }

  #put(settings) {
    const changed = Object.keys(settings).filter((key) => {
      const text = JSON.stringify(settings[key]);
      if (text === undefined || text === this.#texts.get(key)) return false;
      this.#texts.set(key, text);
      this.#refused.delete(key);
      return true;
    });
    if (changed.length) {
      const values = Object.fromEntries(changed.map((key) => [key, JSON.parse(this.#texts.get(key))]));
      this.values = Object.freeze({ ...this.values, ...values });
    }
    return changed;
  }
}

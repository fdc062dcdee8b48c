/** The settings that both devices share, as this one holds them, and which of its edits the server may not have yet. */

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

  /** Take what differs from what is held. True if that was anything. */
  edit(settings) {
    const keys = this.#put(settings);
    for (const key of keys) {
      this.#edited.add(key);
      this.#unsure.delete(key);
    }
    return keys.length > 0;
  }

  /** Values for keys that neither device has set. */
  offer(settings) {
    const keys = this.#put(Object.fromEntries(Object.entries(settings).filter(([key]) => !this.#texts.has(key))));
    for (const key of keys) this.#fills.add(key);
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

  /** Another channel: its document is the truth, and fills what is missing from here. */
  reset() {
    this.#rev = null;
    this.#known.clear();
    this.#edited.clear();
    this.#unsure.clear();
  }

  #put(settings) {
    const changed = Object.keys(settings).filter((key) => {
      const text = JSON.stringify(settings[key]);
      if (text === undefined || text === this.#texts.get(key)) return false;
      this.#texts.set(key, text);
      return true;
    });
    if (changed.length) {
      const values = Object.fromEntries(changed.map((key) => [key, JSON.parse(this.#texts.get(key))]));
      this.values = Object.freeze({ ...this.values, ...values });
    }
    return changed;
  }
}

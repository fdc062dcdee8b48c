/**
 * The client of the pairing server: two devices find each other by six digits and share a channel.
 *
 * pairing.d.ts describes it; docs/client.md shows how to use it.
 */

import { poster, tokens } from "./api.js";
import { PairingError } from "./errors.js";
import { decodeAudio, encodeAudio } from "./frames.js";
import { Link } from "./link.js";
import { Outbox } from "./outbox.js";
import { SharedSettings } from "./settings.js";

export { PairingError };

const OTHER = { desktop: "mobile", mobile: "desktop" };
/** Errors on joining that a later try may not meet. */
const FOR_NOW = ["UNAVAILABLE", "INTERNAL", "RATE_LIMITED"];
const CHANNEL_GONE = ["INVALID_CHANNEL", "CHANNEL_FULL"];
const CLOSE_FOLLOWS = ["INVALID_TOKEN", "SESSION_REPLACED"];
const CHANNEL_CLOSED = 4410;
/** Milliseconds after which `connect` no longer waits; the client goes on trying. */
const CONNECT_WITHIN = 12_000;
/** Above so many bytes that wait in the socket audio is dropped: it is live or nothing. */
const AUDIO_WAITING = 256 * 1024;
/** Ids of messages received, to know those that come twice over a restart of the server. */
const IDS_KEPT = 512;
const OUR_ID = /^~[0-9a-f]{16}\./;

/** Not crypto.randomUUID: pages without TLS have none. */
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function memory() {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
}

const unpaired = () => Promise.reject(new PairingError("NOT_IN_CHANNEL", "There is no pairing. Pair first."));

function deferred() {
  let made;
  const promise = new Promise((resolve, reject) => (made = { resolve, reject }));
  promise.catch(() => {});
  return { promise, ...made };
}

export class PairingClient {
  #deviceType;
  #post;
  #token;
  #storage;
  #listeners = new Map();
  #link;
  #outbox;
  #settings = new SharedSettings((key, reason) => this.#emit("settings-refused", { key, reason }));
  #state = "idle";
  #channel;
  #session;
  #code = null;
  #joined = false;
  #peer = false;
  #epoch;
  #seq;
  #heardIds = new Set();
  #connecting = null;
  #lastError = null;
  #unpairing = null;
  /** A new code is under way, which makes the present one void. */
  #renewing = false;
  /** The `rev` of the settings that follow a join once more. */
  #snapshot = null;
  /** What the server has last complained of on this connection: a close code may follow. */
  #complaint = null;

  constructor({ deviceType, accessToken, wsToken, url, group, storage, fetch, webSocket, heartbeat = 20_000, debug }) {
    if (!OTHER[deviceType] || typeof accessToken !== "function") throw new TypeError("Give a deviceType and a function accessToken.");
    try {
      storage ??= sessionStorage;
      debug ??= localStorage["pairing:debug"];
    } catch {
      // There is none, or it is forbidden.
    }
    if (debug) import("./debug.js").then(({ log }) => log(this, deviceType));
    this.#deviceType = deviceType;
    // Where there is no page, as while a server renders one, there is a client all the same, until it is to connect.
    const locate = (path) => {
      const base = url ?? globalThis.location?.origin;
      if (!base) throw new TypeError("Give the server's url.");
      const found = new URL(path, `${base}/`.replace(/\/+$/, "/"));
      if (group !== undefined) found.searchParams.set("group", group);
      return found;
    };
    this.#post = poster(locate, fetch ?? ((...request) => globalThis.fetch(...request)), accessToken);
    this.#token = tokens(wsToken ?? (() => this.#post(`api/auth/ws-token${deviceType === "mobile" ? "-mobile" : ""}`, {})));
    this.#storage = storage ?? memory();
    this.#channel = this.#storage.getItem(`pairing.${deviceType}.channel`);
    this.#session = this.#storage.getItem(`pairing.${deviceType}.session`) ?? this.#newSession();
    this.#link = new Link({
      url: () => locate("ws").href,
      dial: (url, token) => new (webSocket ?? globalThis.WebSocket)(url.replace("http", "ws"), ["pairing.v1", `Bearer.${token}`]),
      heartbeat,
      token: this.#token,
      opened: () => this.#join(),
      received: (message) => this.#receive(message),
      heard: (buffer) => this.#hear(decodeAudio(buffer)),
      lost: (error, retryAt) => this.#lost(error, retryAt),
      ended: (why) => this.#ended(why),
      seen: (direction, data) => this.#seen(direction, data),
    });
    this.#outbox = new Outbox(`~${random()}`, (text) => this.#link.send(text), () => this.#sendSettings());
  }

  get state() {
    return this.#state;
  }

  get lastError() {
    return this.#lastError;
  }

  get channel() {
    return this.#channel;
  }

  get code() {
    return this.#code;
  }

  get sessionId() {
    return this.#session;
  }

  get peerPresent() {
    return this.#peer;
  }

  get settings() {
    return this.#settings.values;
  }

  get latency() {
    return this.#link.latency;
  }

  get queued() {
    return this.#outbox.length;
  }

  on(event, listener) {
    const heard = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, heard.add(listener));
    return () => heard.delete(listener);
  }

  async generateCode() {
    this.#renewing = true;
    const asked = this.#seat("api/generate-pair-code", () => ({ desktop_session_id: this.#session }));
    const answer = await asked.finally(() => (this.#renewing = false));
    const { code, channel_id: channel, pairing_uri: uri } = answer;
    this.#code = { code, channel, uri, expiresAt: new Date(Date.now() + 1000 * answer.expires_in) };
    this.#enter(channel);
    return this.#code;
  }

  async pair(code) {
    const ask = () => this.#seat("api/pair-device", () => ({ code: String(code), mobile_session_id: this.#session }), 3);
    for (;;) {
      try {
        this.#enter((await ask()).channel_id);
        return this.connect();
      } catch (error) {
        if (error.code !== "CONFIRMATION_NEEDED") throw error;
        this.#emit("confirmation-needed", { expiresIn: error.details.expires_in });
        await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfter));
      }
    }
  }

  answerRequest(wanted) {
    this.#link.send({ type: wanted ? "pairing_confirm" : "pairing_reject", channel: this.#channel });
  }

  connect() {
    if (!this.#channel) return unpaired();
    if (this.#joined) return Promise.resolve();
    this.#connecting ??= deferred();
    this.#connecting.timer ??= setTimeout(() => this.#settle(this.#lastError?.error ?? new PairingError("UNREACHABLE")), CONNECT_WITHIN);
    const { promise } = this.#connecting;
    if (this.#state === "idle" || this.#state === "closed") this.#become("connecting");
    this.#link.start();
    return promise;
  }

  send(payload) {
    if (!this.#channel) return unpaired();
    return this.#outbox.push(payload);
  }

  syncSettings(settings) {
    this.#tellEdits(this.#settings.edit(settings));
  }

  offerSettings(settings) {
    this.#tellEdits(this.#settings.offer(settings));
  }

  sendAudio(sound, about = {}) {
    if (!this.#joined || this.#link.buffered > AUDIO_WAITING) return false;
    if (typeof sound !== "string") return this.#link.send(encodeAudio(sound, about));
    const { chunkId: chunk_id, format, sampleRate: sample_rate } = about;
    return this.#link.send({ type: "audio_chunk", channel: this.#channel, chunk_id, data: sound, format, sample_rate });
  }

  async unpair() {
    if (!this.#channel) return;
    this.#unpairing ??= deferred();
    if (this.#joined) this.#sendUnpair();
    else this.connect().catch(() => {});
    await this.#unpairing.promise;
  }

  close() {
    this.#over(new PairingError("CLOSED", "The client was closed."));
  }

  // HTTP

  /** Ask for a seat under the session id; under another one if that belongs to another account. */
  async #seat(path, body, tries) {
    try {
      return await this.#post(path, body(), tries);
    } catch (error) {
      if (error.code !== "SESSION_CONFLICT") throw error;
      this.#newSession();
      return this.#post(path, body(), tries);
    }
  }

  async #refreshToken() {
    try {
      const message = { type: "refresh_token", token: await this.#token(true) };
      this.#link.send(message, { ...message, token: "…" });
    } catch (error) {
      // The connection ends with the token that it has; the next one gets another.
      this.#emit("error", error);
    }
  }

  #newSession() {
    this.#session = `${this.#deviceType}-${random()}${random()}`;
    this.#storage.setItem(`pairing.${this.#deviceType}.session`, this.#session);
    return this.#session;
  }

  // The channel

  #enter(channel) {
    if (channel !== this.#channel) {
      this.#forget(new PairingError("INVALID_CHANNEL", "The pairing has ended. Pair again."));
      this.#channel = channel;
      this.#storage.setItem(`pairing.${this.#deviceType}.channel`, channel);
      this.#become("connecting");
      if (this.#link.open) this.#join();
    }
    this.connect().catch(() => {});
  }

  /** Nothing of what waits for the channel will come. */
  #abandon(why) {
    this.#joined = this.#peer = false;
    this.#outbox.clear(why);
    this.#settle(why);
  }

  /** What `connect` has promised. */
  #settle(error) {
    clearTimeout(this.#connecting?.timer);
    if (error) this.#connecting?.reject(error);
    else this.#connecting?.resolve();
    this.#connecting = null;
  }

  #forget(why) {
    this.#abandon(why);
    this.#settings.reset();
    this.#channel = null;
    this.#epoch = this.#seq = undefined;
    this.#storage.removeItem(`pairing.${this.#deviceType}.channel`);
  }

  #join() {
    this.#link.send({
      type: "join_channel",
      channel: this.#channel,
      device_type: this.#deviceType,
      session_id: this.#session,
      binary_audio: true,
      last_seq: this.#seq,
      epoch: this.#epoch,
    });
  }

  #onJoined({ channel, devices, settings, rev, epoch, last_seq, recovered }) {
    const missed = this.#epoch && !recovered;
    this.#epoch = epoch;
    this.#seq = last_seq;
    this.#joined = true;
    this.#peer = devices.includes(OTHER[this.#deviceType]);
    this.#link.settled();
    this.#snapshot = rev;
    this.#tellSettings(this.#settings.rejoin(settings, rev));
    this.#outbox.begin(channel);
    if (this.#unpairing) this.#sendUnpair();
    this.#lastError = null;
    this.#settle();
    if (missed) this.#emit("gap", { reason: "not_recovered" });
    this.#arrive();
  }

  #reached(seq) {
    this.#seq = Math.max(this.#seq, seq);
  }

  #arrive() {
    this.#become(this.#peer ? "paired" : "waiting");
  }

  #sendUnpair() {
    this.#link.send({ type: "unpair", channel: this.#channel });
  }

  #sendSettings() {
    const next = this.#settings.next();
    if (!next) return false;
    this.#link.send({ type: "settings_sync", channel: this.#channel, ...next.message });
    if (next.sent) this.#link.ping(next.sent);
    return true;
  }

  #tellEdits(changed) {
    this.#outbox.schedule();
    this.#tellSettings(changed, "settings-edited");
  }

  #tellSettings(changed, event = "settings") {
    if (changed.length) this.#emit(event, { settings: this.settings, changed });
  }

  // What the server says

  #receive(message) {
    if (message.channel && message.channel !== this.#channel) return;
    switch (message.type) {
      case "channel_joined":
        return this.#onJoined(message);
      case "channel_message":
        return this.#onMessage(message);
      case "ack":
        this.#reached(message.seq);
        return this.#outbox.acked(message.id, message.seq);
      case "settings_sync":
        return this.#onSettings(message);
      case "audio_chunk":
        return this.#hear({ data: message.data, chunkId: message.chunk_id, format: message.format, sampleRate: message.sample_rate, seq: message.audio_seq });
      case "audio_gap":
        return this.#emit("gap", { reason: message.reason, from: message.from, to: message.to });
      case "pairing_request":
        return this.#emit("pairing-request", { device: message.device, address: message.address, expiresIn: message.expires_in });
      case "client_joined":
        return this.#onPeer(true, "peer-joined", { sessionId: message.client_id });
      case "pairing_success":
        this.#peer = true;
        return this.#arrive();
      case `${OTHER[this.#deviceType]}_disconnected`:
        return this.#onPeer(false, "peer-left", { sessionId: message.client_id, final: message.force_disconnect, reason: message.reason });
      case "channel_closed":
        return this.#closed(message.reason);
      case "token_expiring":
        return this.#refreshToken();
      case "error":
        return this.#onError(message);
      default:
        return this.#emit(message.type, message);
    }
  }

  #onMessage({ payload, seq, id }) {
    this.#reached(seq);
    if (OUR_ID.test(id)) {
      if (this.#heardIds.has(id)) return;
      this.#heardIds.add(id);
      if (this.#heardIds.size > IDS_KEPT) this.#heardIds.delete(this.#heardIds.values().next().value);
    }
    this.#emit("message", { payload, seq, id });
  }

  #onSettings({ settings, rev, seq }) {
    if (seq) this.#reached(seq);
    const twice = !seq && rev === this.#snapshot;
    this.#snapshot = null;
    if (twice) return;
    this.#tellSettings(this.#settings.receive(settings, rev));
  }

  #hear(chunk) {
    if (chunk && this.#joined) this.#emit("audio", chunk);
  }

  #onPeer(present, event, about) {
    this.#peer = present;
    this.#emit(event, about);
    this.#arrive();
  }

  #onError({ code, message, details, retryable, id }) {
    const error = new PairingError(code, message, { details, retryable });
    this.#complaint = error;
    if (id !== undefined && this.#outbox.refused(id, error)) return;
    const gone = CHANNEL_GONE.includes(code) && (!this.#joined || details.reason);
    if (CLOSE_FOLLOWS.includes(code) || (gone && (details.channel !== this.#channel || this.#renewing))) return;
    if (this.#joined && !gone) {
      if (code === "RATE_LIMITED") this.#outbox.slow(details.retry_after_ms);
      this.#emit("error", error);
    } else if (FOR_NOW.includes(code)) this.#link.fail(error, details.retry_after_ms);
    else this.#over(error, gone);
  }

  // The end

  #lost(error, retryAt) {
    const joined = this.#joined;
    const why = (!joined && this.#complaint) || error;
    this.#joined = this.#peer = false;
    this.#complaint = null;
    this.#outbox.pause();
    if (error) this.#lastError = { error: why, retryAt };
    this.#become(this.#epoch ? "reconnecting" : "connecting");
    if (!error || joined || this.#state === "closed") return;
    this.#emit("error", why, { retryAt });
    // Time mends what may be tried again. The rest is for the developer, at once.
    if (why?.retryable !== true) this.#settle(why);
  }

  /** `why`: a close code, or what the token provider has thrown. */
  #ended(why) {
    if (why === CHANNEL_CLOSED) this.#closed("closed");
    else this.#over(this.#complaint ?? (why instanceof Error ? why : new PairingError("CLOSED", `The server has closed the connection (${why}). Try again.`)));
  }

  #closed(reason) {
    this.#over(new PairingError("INVALID_CHANNEL", "The pairing has ended. Pair again.", { details: { reason } }), true);
  }

  /** `gone`: there is no coming back to this channel. */
  #over(why, gone = false) {
    this.#link.stop();
    this.#complaint = null;
    this.#lastError = { error: why, retryAt: null };
    if (gone) this.#forget(why);
    else this.#abandon(why);
    this.#become("closed", why);
    this.#unpairing?.resolve();
    this.#unpairing = null;
  }

  #become(state, why) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emit("state", state, why);
    if (state === "paired") this.#emit("paired", { channel: this.#channel });
  }

  #seen(direction, data) {
    this.#emit("frame", { direction, ...(typeof data === "string" ? { text: data } : { bytes: data.size ?? data.byteLength }) });
  }

  #emit(event, ...about) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        listener(...about);
      } catch (error) {
        // A fault of the listener is reported as uncaught; the client continues.
        setTimeout(() => {
          throw error;
        });
      }
    }
  }
}

/**
 * A network that can be made bad, for one device: stands in for `WebSocket` and `fetch`.
 *
 * What it does is what networks do. Nothing is ever lost from the middle of a connection, for TCP does not: frames come
 * late, in order; or they stop coming, and the connection turns out to be dead when the network is back.
 */

/** How long a frame takes on a slow network, in milliseconds, each way. */
const SLOW = 800;

/** good; slow: everything comes late; dead: nothing arrives, and no side notices; offline: no connection at all. */
export const MODES = ["good", "slow", "dead", "offline"];

export class Network extends EventTarget {
  #mode = "good";
  #sockets = new Set();
  #spoil = false;

  constructor() {
    super();
    const network = this;
    this.WebSocket = class extends Socket {
      constructor(url, protocols) {
        super(network, url, protocols);
      }
    };
    this.fetch = (input, init) => this.#fetch(input, init);
  }

  get mode() {
    return this.#mode;
  }

  set mode(mode) {
    const was = this.#mode;
    this.#mode = mode;
    if (mode === "offline" || was === "dead") this.cut();
    if (was === "offline" && mode !== "offline") this.dispatchEvent(new Event("back"));
  }

  /** Milliseconds that anything takes, each way. */
  get delay() {
    return this.#mode === "slow" ? SLOW : 0;
  }

  /** Break every connection, as a network does: no closing handshake, close code 1006. */
  cut() {
    for (const socket of [...this.#sockets]) socket.break();
  }

  /** Break the connection, and let the next one present a token that the server refuses. */
  expireToken() {
    this.#spoil = true;
    this.cut();
  }

  /** What a new connection presents: its URL and sub-protocols, spoiled once after expireToken(). */
  presented(url, protocols) {
    if (!this.#spoil) return [url, protocols];
    this.#spoil = false;
    const list = protocols === undefined ? [] : [protocols].flat();
    const spoiled = list.map((name) => (/^bearer\./i.test(name) ? withoutSignature(name) : name));
    const address = new URL(url, location.href);
    const token = address.searchParams.get("token");
    if (token) address.searchParams.set("token", withoutSignature(token));
    return [address.href, protocols === undefined ? undefined : spoiled];
  }

  opened(socket) {
    this.#sockets.add(socket);
  }

  closed(socket) {
    this.#sockets.delete(socket);
  }

  async #fetch(input, init) {
    if (this.#mode === "offline") throw new TypeError("Failed to fetch");
    await this.#lapse();
    const answer = await fetch(input, init);
    await this.#lapse();
    return answer;
  }

  #lapse() {
    const { delay } = this;
    return delay ? new Promise((resolve) => setTimeout(resolve, delay)) : undefined;
  }
}

/** The token with a wrong signature. */
function withoutSignature(token) {
  const end = token.lastIndexOf(".") + 1;
  return token.slice(0, end) + "A".repeat(token.length - end);
}

/** A WebSocket on a Network. */
class Socket extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;

  #network;
  #inner = null;
  #due = 0;
  #waiting = [];
  #listening = new AbortController();

  constructor(network, url, protocols) {
    super();
    this.#network = network;
    this.url = url;
    this.protocol = "";
    this.extensions = "";
    this.readyState = Socket.CONNECTING;
    this.onopen = this.onmessage = this.onerror = this.onclose = null;
    network.opened(this);
    if (network.mode === "offline") queueMicrotask(() => this.break());
    else if (network.mode !== "dead") this.#connect(...network.presented(url, protocols));
  }

  #connect(url, protocols) {
    this.#inner = protocols === undefined ? new WebSocket(url) : new WebSocket(url, protocols);
    const { signal } = this.#listening;
    this.#inner.addEventListener("open", () => this.#pass(() => this.#open()), { signal });
    this.#inner.addEventListener("message", ({ data }) => this.#pass(() => this.#tell(new MessageEvent("message", { data }))), { signal });
    this.#inner.addEventListener("error", () => this.#pass(() => this.#tell(new Event("error"))), { signal });
    this.#inner.addEventListener("close", (event) => this.#pass(() => this.#close(event)), { signal });
  }

  get binaryType() {
    return this.#inner?.binaryType ?? "blob";
  }

  set binaryType(type) {
    if (this.#inner) this.#inner.binaryType = type;
  }

  get bufferedAmount() {
    return this.#inner?.bufferedAmount ?? 0;
  }

  send(data) {
    if (this.readyState === Socket.CONNECTING) throw new DOMException("not open yet", "InvalidStateError");
    if (this.readyState === Socket.OPEN) this.#pass(() => this.#inner.send(data));
  }

  close(code, reason) {
    if (this.readyState >= Socket.CLOSING) return;
    this.readyState = Socket.CLOSING;
    if (!this.#inner || this.#network.mode === "dead") queueMicrotask(() => this.break());
    else this.#pass(() => (code === undefined ? this.#inner.close() : this.#inner.close(code, reason)));
  }

  /** The network has gone from under it. */
  break() {
    if (this.readyState === Socket.CLOSED) return;
    this.#listening.abort();
    this.#inner?.close();
    this.#tell(new Event("error"));
    this.#close({ code: 1006, reason: "", wasClean: false });
  }

  /** Do it once the network lets it through, in order; never on a dead one. */
  #pass(act) {
    if (this.#network.mode === "dead") return;
    const now = performance.now();
    const due = Math.max(now + this.#network.delay, this.#due);
    if (due <= now && !this.#waiting.length) {
      act();
      return;
    }
    this.#due = due;
    this.#waiting.push(act);
    // Timers may fire a little early or late: each sends what has waited longest.
    setTimeout(() => {
      const next = this.#waiting.shift();
      if (this.readyState !== Socket.CLOSED && this.#network.mode !== "dead") next();
    }, due - now);
  }

  #open() {
    this.protocol = this.#inner.protocol;
    this.readyState = Socket.OPEN;
    this.#tell(new Event("open"));
  }

  #close({ code, reason, wasClean }) {
    this.readyState = Socket.CLOSED;
    this.#network.closed(this);
    this.#tell(new CloseEvent("close", { code, reason, wasClean }));
  }

  #tell(event) {
    this.dispatchEvent(event);
    this[`on${event.type}`]?.(event);
  }
}

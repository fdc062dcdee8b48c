/** One device on the page: its client on a network of its own, and everything that shows and moves it. */

import { PairingClient } from "../client/pairing.js";
import { h, uniqueId } from "./dom.js";
import { messagesPanel } from "./messages.js";
import { Network } from "./network.js";
import { networkPanel } from "./network-panel.js";
import { settingsPanel } from "./settings.js";
import { soundPanel } from "./sound.js";

const WORDS = {
  idle: "Not connected",
  connecting: "Connecting",
  waiting: "Waiting",
  paired: "Paired",
  reconnecting: "Reconnecting",
  closed: "Closed",
};

/** A Storage whose keys are one device's own. */
export function storageOf(device, storage = sessionStorage) {
  const own = (key) => `pairing-demo.${device}.${key}`;
  return {
    getItem: (key) => storage.getItem(own(key)),
    setItem: (key, value) => storage.setItem(own(key), value),
    removeItem: (key) => storage.removeItem(own(key)),
  };
}

export class Device {
  /**
   * `kind`: "desktop" or "mobile". `pairing`: makes what stands here while there is no pairing, from this device; it
   * has an `element`, and `start()`.
   */
  constructor({ kind, name, peerName, account, wire, pairing }) {
    this.kind = kind;
    this.name = name;
    this.peerName = peerName;
    this.account = account;
    this.storage = storageOf(kind);
    this.network = new Network();
    this.client = new PairingClient({
      deviceType: kind,
      // The server may be under a path.
      url: new URL("..", import.meta.url).href,
      accessToken: account.token,
      storage: this.storage,
      webSocket: this.network.WebSocket,
      fetch: this.network.fetch,
      heartbeat: 3_000,
    });
    wire.add(this.client, name, kind);
    this.pairing = pairing(this);
    this.#build();
    this.#listen();
    this.#show();
  }

  /** Whether this channel has had both devices in it: the code has done its work. */
  get met() {
    return this.client.channel !== null && this.storage.getItem("met") === this.client.channel;
  }

  #build() {
    const heading = uniqueId("device");
    this.pill = h("span", { class: "pill" });
    this.peer = h("dd");
    this.latency = h("dd", { class: "number" });
    this.channel = h("dd", { class: "number" });
    this.unpair = h("button", { type: "button", class: "quiet", onclick: () => this.#unpair() }, "Unpair");
    this.problem = h("p", { class: "problem", role: "alert" });
    this.said = h("p", { class: "hidden", role: "status" });
    this.together = h(
      "div",
      { class: "together" },
      section("Audio settings", settingsPanel(this.client)),
      section("Messages", messagesPanel(this.client, this.peerName)),
      section("Microphone", soundPanel(this.client, this.peerName, (text) => this.showProblem(text))),
    );
    this.element = h(
      "section",
      { class: `device ${this.kind}`, "aria-labelledby": heading, id: this.kind },
      h("header", {}, h("h2", { id: heading }, this.name), this.pill, this.unpair),
      h(
        "dl",
        { class: "facts" },
        h("div", {}, h("dt", {}, this.peerName === "phone" ? "Phone" : "Desktop"), this.peer),
        h("div", {}, h("dt", {}, "Latency"), this.latency),
        h("div", {}, h("dt", {}, "Channel"), this.channel),
      ),
      this.problem,
      this.said,
      h("div", { class: "body" }, this.pairing.element, this.together),
      networkPanel(this.network, this.name),
    );
  }

  #listen() {
    const { client } = this;
    client.on("state", (state, why) => {
      if (state === "closed") this.showProblem(why.code === "CLOSED" ? "" : why.message);
      this.#show();
    });
    client.on("paired", ({ channel }) => {
      this.storage.setItem("met", channel);
      this.showProblem("");
      this.#show();
    });
    client.on("peer-joined", () => this.#show());
    client.on("peer-left", ({ final }) => {
      if (final) this.showProblem(`The ${this.peerName} has ended the pairing.`);
      this.#show();
    });
    client.on("gap", ({ reason }) => {
      if (reason === "not_recovered") this.showProblem("Some messages are lost. Ask for them to be sent again.");
    });
    client.on("error", (error, about) => {
      // Of a connection that comes back the state says enough.
      if (!about || client.state === "connecting") this.showProblem(error.message);
    });
    setInterval(() => this.#showLatency(), 1000);
  }

  #show() {
    const { client } = this;
    const { state } = client;
    const word = state === "waiting" && !this.met ? "Ready" : WORDS[state];
    if (this.pill.textContent !== word) this.said.textContent = `${this.name}: ${word}`;
    this.pill.textContent = word;
    this.pill.dataset.state = state;
    this.peer.textContent = client.peerPresent ? "here" : this.met ? "away" : "none yet";
    this.channel.textContent = client.channel ?? "–";
    this.element.classList.toggle("met", this.met);
    this.together.hidden = !this.met;
    this.pairing.element.hidden = this.met;
    this.unpair.hidden = !this.met;
    if (state === "paired") this.problem.textContent = "";
    this.#showLatency();
  }

  #showLatency() {
    const { latency } = this.client;
    this.latency.textContent = typeof latency === "number" ? `${Math.round(latency)} ms` : "–";
  }

  /** Show what went wrong, or nothing for "". */
  showProblem(text) {
    this.problem.textContent = text;
  }

  async #unpair() {
    try {
      await this.client.unpair();
    } catch (error) {
      this.showProblem(error.message);
    }
  }
}

function section(title, ...children) {
  const id = uniqueId("part");
  return h("section", { class: "part", "aria-labelledby": id }, h("h3", { id }, title), children);
}

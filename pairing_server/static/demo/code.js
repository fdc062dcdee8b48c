/** The desktop's side of pairing: the code, large, and the QR code of it. */

import { post } from "./account.js";
import { clock, h } from "./dom.js";

const LOOPBACK = /^(localhost|127\..*|\[::1\]|0\.0\.0\.0|\[::\])$/;

export class CodePanel {
  #device;
  #publicUrl;
  #timer = null;
  #withQr = false;

  constructor(device, publicUrl) {
    this.#device = device;
    this.#publicUrl = publicUrl;
    this.code = null;
    this.expiresAt = null;
    this.digits = h("output", { class: "code", "aria-label": "Pairing code" });
    this.hint = h("p", { class: "hint" });
    this.again = h("button", { type: "button", class: "quiet", onclick: () => this.renew() }, "New code");
    this.picture = h("img", { class: "qr", alt: "QR code that opens the phone page with this code filled in", hidden: true });
    this.link = h("a", { target: "_blank", rel: "noopener" }, "Open the phone page in a tab");
    this.copy = h("button", { type: "button", class: "quiet", onclick: () => this.#copy() }, "Copy link");
    this.scan = h("div", { class: "scan", hidden: true }, this.picture, h("p", { class: "links" }, this.link, this.copy), this.#reach());
    this.request = h("div", { class: "request", role: "alert", hidden: true });
    this.element = h("div", { class: "pairing" }, this.request, this.digits, this.hint, this.scan, this.again);
    device.client.on("pairing-request", (about) => this.#ask(about));
    device.storage.getItem("code") && this.#restore();
  }

  /** What a phone must be able to reach, where it cannot. */
  #reach() {
    const { hostname, protocol, port } = new URL(this.#publicUrl);
    if (LOOPBACK.test(hostname)) {
      return h(
        "p",
        { class: "note" },
        `${this.#publicUrl} works on this machine only. For a phone, start the server with `,
        h("code", {}, "PAIRING_HOST=0.0.0.0"), ", ",
        h("code", {}, "PAIRING_REGISTRATION=open"), " and ",
        h("code", {}, `PAIRING_PUBLIC_URL=http://<this machine>:${port || 80}`),
        ".",
      );
    }
    return protocol === "https:" ? null : h("p", { class: "note" }, "Phones give a page their microphone only over https://.");
  }

  /** With a QR code for a real phone, or without for the one beside it. */
  set withQr(wanted) {
    this.#withQr = wanted;
    this.scan.hidden = !wanted || !this.code;
    if (this.code) this.#tick();
    if (wanted) this.#draw();
  }

  /** Back to the channel of this tab, else a first code. */
  async start() {
    const { client } = this.#device;
    client.on("state", (state) => {
      if (state === "closed") this.#gone();
    });
    try {
      await client.connect();
      this.#tick();
    } catch {
      await this.renew();
    }
  }

  /** A new code, which the server makes; the old one is void. */
  async renew() {
    this.again.disabled = true;
    this.hint.textContent = "Asking for a code…";
    try {
      const { code, expiresAt } = await this.#device.client.generateCode();
      this.code = code;
      this.expiresAt = expiresAt;
      this.#device.storage.setItem("code", JSON.stringify({ code, expiresAt }));
      this.#device.showProblem("");
      this.#tick();
      if (this.#withQr) await this.#draw();
    } catch (error) {
      this.#gone();
      this.#device.showProblem(error.message);
    } finally {
      this.again.disabled = false;
    }
  }

  /** The server suspects guessing: the user of this desktop confirms or rejects the phone. */
  #ask({ device, address }) {
    const answer = (wanted) => {
      this.request.hidden = true;
      this.#device.client.answerRequest(wanted);
    };
    this.request.replaceChildren(
      h("p", {}, "Somebody is guessing codes, so say whether this phone is yours:"),
      h("p", {}, h("strong", {}, device || "A phone"), address ? ` at ${address}` : ""),
      h(
        "p",
        { class: "acts" },
        h("button", { type: "button", onclick: () => answer(true) }, "Let it in"),
        h("button", { type: "button", class: "quiet", onclick: () => answer(false) }, "Refuse"),
      ),
    );
    this.request.hidden = false;
  }

  #restore() {
    const { code, expiresAt } = JSON.parse(this.#device.storage.getItem("code"));
    this.code = code;
    this.expiresAt = new Date(expiresAt);
  }

  /** The code is of no use any more. */
  #gone() {
    this.code = null;
    this.#device.storage.removeItem("code");
    clearInterval(this.#timer);
    this.digits.textContent = "";
    this.scan.hidden = this.request.hidden = true;
    this.hint.textContent = "There is no code. Ask for a new one.";
    this.again.classList.remove("quiet");
  }

  /** Show the code and how long it lives, each second. */
  #tick() {
    clearInterval(this.#timer);
    this.again.classList.add("quiet");
    const show = () => {
      const left = (this.expiresAt - Date.now()) / 1000;
      if (!this.code || left <= 0) {
        this.#gone();
        return;
      }
      const how = this.#withQr ? "Scan it with the phone, or type it there." : "Type it on the phone.";
      this.hint.textContent = `${how} It works once, for ${clock(left)}.`;
    };
    if (this.code) this.digits.replaceChildren(h("span", {}, this.code.slice(0, 3)), h("span", {}, this.code.slice(3)));
    this.#timer = setInterval(show, 1000);
    show();
  }

  async #draw() {
    if (!this.code) return;
    const { account } = this.#device;
    const login = account.handOver ?? undefined;
    this.link.href = `phone#code=${this.code}${login ? `&login=${login}` : ""}`;
    try {
      const answer = await post("demo/qr", { code: this.code, login }, await account.token());
      this.picture.src = `data:image/svg+xml,${encodeURIComponent(await answer.text())}`;
      this.picture.hidden = false;
      this.scan.hidden = !this.#withQr;
    } catch (error) {
      this.#device.showProblem(error.message);
    }
  }

  async #copy() {
    const { hash } = new URL(this.link.href);
    try {
      await navigator.clipboard.writeText(`${this.#publicUrl}/phone${hash}`);
      this.copy.textContent = "Copied";
    } catch {
      this.#device.showProblem("The browser does not let this page copy. Use the link beside the button.");
    }
  }
}

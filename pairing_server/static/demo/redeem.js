/** The phone's side of pairing: a place for six digits. */

import { h, uniqueId } from "./dom.js";

export class RedeemPanel {
  #device;

  /** `suggest`: the code that a desktop on the same page shows, or null. */
  constructor(device, suggest) {
    this.#device = device;
    const id = uniqueId("code");
    this.input = h("input", {
      id,
      name: "code",
      class: "code",
      inputmode: "numeric",
      autocomplete: "one-time-code",
      maxlength: "32",
      placeholder: "000 000",
      required: true,
      // As the server takes it: digits of any script, and spaces and dashes between them.
      pattern: "[\\s\\p{Pd}]*(\\p{Nd}[\\s\\p{Pd}\\p{Cf}]*){6}",
      title: "Six digits",
    });
    this.button = h("button", { type: "submit" }, "Pair");
    const typed = suggest && h("button", { type: "button", class: "quiet", onclick: () => this.#type(suggest()) }, "Type it for me");
    this.element = h(
      "form",
      { class: "pairing" },
      h("label", { for: id }, "Code that the desktop shows"),
      this.input,
      h("div", { class: "acts" }, this.button, typed),
    );
    device.client.on("confirmation-needed", () => device.showProblem("The desktop asks whether to pair with this phone. Confirm it there."));
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.pair(this.input.value);
    });
  }

  /** Back to the channel of this tab, if there is one. */
  async start() {
    try {
      await this.#device.client.connect();
    } catch {
      // There is none, or it has ended: a code will be typed.
    }
  }

  /** Fill in a code; the user sends it. */
  fill(code) {
    this.input.value = `${code.slice(0, 3)} ${code.slice(3)}`;
    this.button.focus();
  }

  #type(code) {
    if (!code) {
      this.#device.showProblem("The desktop shows no code. Ask it for a new one.");
      return;
    }
    this.fill(code);
    this.pair(code);
  }

  async pair(typed) {
    this.button.disabled = true;
    this.#device.showProblem("");
    try {
      await this.#device.client.pair(typed.replace(/\D/g, ""));
      this.input.value = "";
    } catch (error) {
      this.#device.showProblem(error.message);
      this.input.focus();
    } finally {
      this.button.disabled = false;
    }
  }
}

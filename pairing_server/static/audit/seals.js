/** How far the log is sealed. Whether the seals hold, only `audit verify` can say, on a machine that is trusted. */

import { h } from "./dom.js";
import { count, shown } from "./question.js";

// Seals are made each minute. Older than that, and more than a little, is worth a look.
const LATE = 10 * 60_000;

export class Seals {
  constructor() {
    this.state = h("span", { class: "pill" }, "asking …");
    this.body = h("div", { class: "pop" });
    this.element = h("details", { class: "more seals" }, h("summary", {}, "Seals ", this.state), this.body);
  }

  show({ seals, unsealed, public_key: key, copied }) {
    const late = unsealed.oldest && Date.now() - Date.parse(unsealed.oldest) > LATE;
    const [last] = seals;
    this.state.className = `pill ${!last || late ? "failure" : "success"}`;
    this.state.textContent = !last ? "none yet" : late ? "late" : `${count(last.number)}, in time`;
    this.body.replaceChildren(
      h(
        "dl",
        { class: "facts" },
        fact("Last seal", last ? `${count(last.number)}, ${shown(last.sealed_at)} UTC, by ${last.node}` : "none"),
        fact("Its digest", last ? last.digest : "none"),
        fact("Not sealed yet", unsealed.oldest ? `${count(unsealed.rows)} events, since ${shown(unsealed.oldest)} UTC` : "nothing"),
        fact("Copied outside", copied === null ? "no: set PAIRING_AUDIT_SEAL_COPY" : `up to seal ${count(copied)}`),
        fact("Public key", key),
      ),
      h("p", { class: "muted" }, "Whether all seals hold: ", h("code", {}, "pairing-server audit verify")),
      seals.length
        ? h(
            "table",
            { class: "small" },
            h("thead", {}, h("tr", {}, ["Seal", "Made (UTC)", "Events", "Digest"].map((head) => h("th", { scope: "col" }, head)))),
            h("tbody", {}, seals.slice(0, 8).map((seal) => h("tr", {}, h("td", {}, count(seal.number)), h("td", {}, shown(seal.sealed_at)), h("td", {}, count(seal.rows)), h("td", { class: "mono" }, `${seal.digest.slice(0, 16)}…`)))),
          )
        : null,
    );
  }

  failed(error) {
    this.state.className = "pill failure";
    this.state.textContent = "not known";
    this.body.replaceChildren(h("p", {}, error.text ?? error.message));
  }
}

function fact(name, value) {
  return [h("dt", {}, name), h("dd", {}, value)];
}

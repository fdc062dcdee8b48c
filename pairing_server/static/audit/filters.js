/** The bar of filters: when, which events, who, from where. Each change is a new question. */

import { h } from "./dom.js";
import { ask, changed, count, exact, narrowing, RANGES, shown } from "./question.js";

const OUTCOMES = ["success", "failure", "denied", "error"];
const SEVERITIES = ["", "critical", "error", "warning", "notice", "info"];

export class Filters {
  #question = {};
  #fields = {};
  #ranges = new Map();
  #chips = h("div", { class: "chips" });

  constructor() {
    const field = (name, label, more = {}) => {
      const input = h("input", { id: `f-${name}`, name, autocapitalize: "none", autocomplete: "off", spellcheck: "false", ...more });
      this.#fields[name] = input;
      return h("div", { class: "field" }, h("label", { for: `f-${name}` }, label), input);
    };
    const choice = (name, label, options, first) => {
      const select = h("select", { id: `f-${name}`, name }, options.map((value) => h("option", { value }, value || first)));
      this.#fields[name] = select;
      select.addEventListener("change", () => this.#submit());
      return h("div", { class: "field" }, h("label", { for: `f-${name}` }, label), select);
    };
    const known = h("datalist", { id: "events" });
    this.known = known;
    const form = h(
      "form",
      { class: "filters", role: "search", "aria-label": "Filters" },
      field("event", "Event", { list: "events", placeholder: "auth.*, pairing.redeem" }),
      field("user", "User", { placeholder: "name" }),
      field("address", "Address", { placeholder: "10.0.0.0/8" }),
      choice("outcome", "Outcome", ["", ...OUTCOMES], "any"),
      choice("severity", "Severity from", SEVERITIES, "any"),
      h(
        "details",
        { class: "more" },
        h("summary", {}, "More"),
        h(
          "div",
          { class: "pop" },
          field("actor", "Subject"),
          field("pairing", "Pairing id"),
          field("connection", "Connection id"),
          field("from", "From (UTC)", { type: "datetime-local", step: "1" }),
          field("to", "To (UTC)", { type: "datetime-local", step: "1" }),
        ),
      ),
      h("div", { class: "buttons" }, h("button", { type: "submit" }, "Search")),
      known,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.querySelector("details").open = false;
      this.#submit();
    });
    const ranges = RANGES.map(([value, label]) => {
      const input = h("input", { type: "radio", name: "range", id: `r-${value}`, value, onchange: () => ask(changed(this.#question, { since: value, until: "" })) });
      this.#ranges.set(value, input);
      return h("span", {}, input, h("label", { for: `r-${value}` }, label));
    });
    this.ranges = h("fieldset", { class: "ranges" }, h("legend", { class: "hidden" }, "Time"), h("div", { class: "segments" }, ranges));
    this.span = h("span", { class: "span muted" });
    this.element = h("div", { class: "card asking" }, form, this.#chips);
  }

  /** Show what is asked. */
  show(question) {
    this.#question = question;
    for (const [name, input] of Object.entries(this.#fields)) input.value = question[name] ?? "";
    for (const [end, name] of [["from", "since"], ["to", "until"]]) {
      const at = Date.parse(question[name] ?? "");
      this.#fields[end].value = Number.isNaN(at) ? "" : new Date(at).toISOString().slice(0, 19);
    }
    if (!SEVERITIES.includes(question.severity ?? "")) this.#fields.severity.value = "";
    for (const [value, input] of this.#ranges) input.checked = !question.until && question.since === value;
    this.#chips.replaceChildren(
      ...narrowing(question).map(([name, label, value]) =>
        h(
          "span",
          { class: "chip" },
          `${label} `,
          h("b", {}, value),
          h("button", { type: "button", class: "remove", "aria-label": `Remove ${label} ${value}`, onclick: () => ask(changed(this.#question, { [name]: "" })) }, "×"),
        ),
      ),
    );
    if (this.#chips.childElementCount > 1) {
      const { since, until } = question;
      this.#chips.append(h("button", { type: "button", class: "quiet", onclick: () => ask({ since, until }) }, "Clear all"));
    }
    this.#chips.hidden = !this.#chips.childElementCount;
  }

  /** Say which time the answer is about. */
  tell(since, until, total) {
    this.span.textContent = `${shown(since, false)} to ${shown(until, false)} UTC · ${count(total)} events`;
  }

  #submit() {
    const parts = Object.fromEntries(Object.entries(this.#fields).map(([name, input]) => [name, input.value.trim()]));
    const times = {};
    for (const [end, name] of [["from", "since"], ["to", "until"]]) {
      if (parts[end]) times[name] = exact(`${parts[end]}Z`);
      else if (/^\d{4}/.test(this.#question[name] ?? "")) times[name] = "";
      delete parts[end];
    }
    ask(changed(this.#question, { ...parts, ...times }));
  }
}

/** The events, newest first, a row each. */

import { h } from "./dom.js";
import { shown } from "./question.js";

export class Table {
  #rows = h("tbody");
  #names = {};
  #seen = new Set();

  /** `open(event, names)` is called with the event that is chosen. */
  constructor(open) {
    this.open = open;
    const heads = ["Time (UTC)", "Event", "Outcome", "Who", "Address", "Details"];
    this.element = h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Events" },
      h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), this.#rows),
    );
  }

  get size() {
    return this.#rows.childElementCount;
  }

  clear() {
    this.#seen.clear();
    this.#names = {};
    this.#rows.replaceChildren();
  }

  /** Older events, under those that are there. */
  append({ events, names }) {
    this.#add(events, names, (rows) => this.#rows.append(...rows));
  }

  /** Newer events, oldest first, above those that are there. */
  prepend({ events, names }) {
    this.#add(events, names, (rows) => {
      this.#rows.prepend(...rows.reverse());
      for (const row of rows) row.classList.add("new");
    });
  }

  #add(events, names, put) {
    Object.assign(this.#names, names);
    const fresh = events.filter(({ seq }) => !this.#seen.has(seq));
    for (const { seq } of fresh) this.#seen.add(seq);
    put(fresh.map((event) => this.#row(event)));
  }

  #row(event) {
    const who = this.#names[event.actor] ?? event.actor;
    return h(
      "tr",
      { class: event.severity <= 3 ? "severe" : null, onclick: (click) => this.#chosen(click, event) },
      h("td", { class: "time" }, shown(event.recorded_at)),
      h("th", { scope: "row" }, h("button", { type: "button", class: "event" }, event.event), event.count > 1 ? h("span", { class: "times" }, ` ×${event.count}`) : null),
      h("td", {}, h("span", { class: `pill ${event.outcome}` }, event.outcome)),
      h("td", { class: "who-cell", title: event.actor ?? "" }, who ?? h("span", { class: "muted" }, event.actor_kind)),
      h("td", { class: "mono" }, event.address ?? ""),
      h("td", { class: "details" }, told(event)),
    );
  }

  #chosen(click, event) {
    // Who marks text to copy it has not chosen the row.
    if (getSelection()?.toString() && !click.target.closest("button")) return;
    this.open(event, this.#names);
  }
}

function told({ reason, attrs }) {
  const parts = Object.entries(attrs).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${brief(String(value))}`);
  return [...(reason ? [h("b", {}, reason)] : []), `${reason && parts.length ? " · " : ""}${parts.join(" · ")}`];
}

/** The beginnings of ids and digests differ; the details show them in full. */
function brief(text) {
  return text.length > 20 && !/\s/.test(text) ? `${text.slice(0, 12)}…` : text;
}

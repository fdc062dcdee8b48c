/** How much happened when: a bar for each step, stacked by outcome. Drag over it, or use the arrow keys, to zoom in. */

import { h, uniqueId } from "./dom.js";
import { count, exact, shown } from "./question.js";

export const OUTCOMES = ["success", "failure", "denied", "error"];
const HEIGHT = 150;
const AXIS = 22;
const LEFT = 44;
// What is there is seen, however little it is beside the rest.
const LEAST = 2.5;

const MINUTE = 60_000;
const DAY = 1440 * MINUTE;
// Where the axis has its marks: at the clock's times.
const ROUND = [...[1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720].map((minutes) => minutes * MINUTE), ...[1, 2, 7, 14, 28, 56, 112].map((days) => days * DAY)];

const svg = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

export class Timeline {
  #found = { since: 0, until: 0, step: 60_000 };
  #bars = [];
  #drawing = svg("svg", { height: HEIGHT + AXIS, "aria-hidden": "true" });
  #tip = h("div", { class: "tip", hidden: true });
  #said = h("p", { class: "hidden", role: "status" });
  #chosen = null;
  #width = 0;

  /** `zoom(since, until)` is called with times; `only(outcome)` when one of the legend is pressed. */
  constructor(zoom, only) {
    this.zoom = zoom;
    const hint = uniqueId("hint");
    this.chart = h(
      "div",
      { class: "chart", tabindex: "0", role: "application", "aria-roledescription": "timeline", "aria-label": "Events over time", "aria-describedby": hint },
      this.#drawing,
      this.#tip,
    );
    this.legend = h(
      "div",
      { class: "legend" },
      OUTCOMES.map((outcome) => h("button", { type: "button", class: `key ${outcome}`, title: `Only ${outcome}`, onclick: () => only(outcome) }, h("i", {}), h("span", {}, outcome), " ", h("b", {}, "0"))),
    );
    this.element = h(
      "div",
      {},
      this.legend,
      this.chart,
      h("p", { class: "hint muted", id: hint }, "Drag to zoom. Keys: arrows move, with Shift they select, Enter zooms."),
      this.#said,
    );
    new ResizeObserver(([{ contentRect }]) => {
      if (Math.round(contentRect.width) === this.#width) return;
      this.#width = Math.round(contentRect.width);
      this.#draw();
    }).observe(this.chart);
    this.#listen();
  }

  /** Show what /api/audit/timeline has answered. */
  show(found) {
    const since = new Date(found.since).getTime();
    const until = new Date(found.until).getTime();
    this.#found = { since, until, step: found.step * 1000 };
    this.#bars = Array.from({ length: Math.max(1, Math.ceil((until - since) / this.#found.step)) }, () => ({}));
    const totals = {};
    for (const { at, outcomes } of found.bars) {
      const place = Math.min(this.#bars.length - 1, Math.floor((Date.parse(at) - since) / this.#found.step));
      for (const [outcome, number] of Object.entries(outcomes)) {
        this.#bars[place][outcome] = (this.#bars[place][outcome] ?? 0) + number;
        totals[outcome] = (totals[outcome] ?? 0) + number;
      }
    }
    for (const key of this.legend.children) {
      const outcome = key.querySelector("span").textContent;
      key.querySelector("b").textContent = count(totals[outcome] ?? 0);
    }
    this.#chosen = null;
    this.#draw();
    return Object.values(totals).reduce((sum, number) => sum + number, 0);
  }

  clear() {
    const { since, until, step } = this.#found;
    this.show({ since, until, step: step / 1000, bars: [] });
  }

  #total(bar) {
    return OUTCOMES.reduce((sum, outcome) => sum + (bar[outcome] ?? 0), 0);
  }

  #draw() {
    const width = this.#width;
    if (!width || !this.#bars.length) return;
    const most = nice(Math.max(1, ...this.#bars.map((bar) => this.#total(bar))));
    const each = (width - LEFT) / this.#bars.length;
    const gap = each > 4 ? 1 : 0;
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const y = HEIGHT - share * (HEIGHT - 10);
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: width, y1: y, y2: y }));
      const value = most * share;
      if (Number.isInteger(value)) parts.push(svg("text", { class: "axis", x: LEFT - 6, y: y + 4, "text-anchor": "end" }, short(value)));
    }
    for (const [place, bar] of this.#bars.entries()) {
      let y = HEIGHT;
      for (const outcome of OUTCOMES) {
        if (!bar[outcome]) continue;
        const tall = Math.max(LEAST, (bar[outcome] / most) * (HEIGHT - 10));
        y -= tall;
        parts.push(svg("rect", { class: outcome, x: LEFT + place * each, width: Math.max(1, each - gap), y, height: tall }));
      }
    }
    parts.push(...this.#ticks(width, each));
    if (this.#chosen) {
      const [first, last] = this.#span();
      parts.push(svg("rect", { class: "chosen", x: LEFT + first * each, width: (last - first + 1) * each, y: 0, height: HEIGHT }));
    }
    this.#drawing.setAttribute("width", width);
    this.#drawing.replaceChildren(...parts);
  }

  #ticks(width, each) {
    const { since, step } = this.#found;
    const days = this.#bars.length * step > 48 * 3600_000;
    const room = days ? 88 : 64;
    const every = ROUND.find((length) => length >= step && (length / step) * each >= room) ?? ROUND.at(-1);
    const ticks = [];
    for (let at = Math.ceil(since / every) * every; ; at += every) {
      const x = LEFT + ((at - since) / step) * each;
      if (x + room - 24 > width) break;
      const text = shown(at, false);
      ticks.push(svg("line", { class: "grid", x1: x, x2: x, y1: HEIGHT, y2: HEIGHT + 5 }));
      ticks.push(svg("text", { class: "axis", x: x + 4, y: HEIGHT + 16 }, days ? text.slice(0, 10) : text.slice(11)));
    }
    return ticks;
  }

  #span() {
    const [one, other] = this.#chosen;
    return [Math.min(one, other), Math.max(one, other)];
  }

  #place(event) {
    const box = this.chart.getBoundingClientRect();
    const place = Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT)) * this.#bars.length);
    return Math.max(0, Math.min(this.#bars.length - 1, place));
  }

  #choose(one, other, tell) {
    this.#chosen = [one, other];
    this.#draw();
    const text = this.#text();
    this.#tip.textContent = text;
    this.#tip.hidden = false;
    const [first, last] = this.#span();
    const x = LEFT + ((first + last + 1) / 2) * ((this.#width - LEFT) / this.#bars.length);
    this.#tip.style.left = `${Math.max(110, Math.min(this.#width - 110, x))}px`;
    if (tell) this.#said.textContent = text;
  }

  #text() {
    const [first, last] = this.#span();
    const { since, step } = this.#found;
    const told = OUTCOMES.map((outcome) => {
      const number = this.#bars.slice(first, last + 1).reduce((sum, bar) => sum + (bar[outcome] ?? 0), 0);
      return number ? `${count(number)} ${outcome}` : null;
    }).filter(Boolean);
    return `${shown(since + first * step, false)} to ${shown(since + (last + 1) * step, false)}: ${told.join(", ") || "nothing"}`;
  }

  #leave() {
    this.#chosen = null;
    this.#tip.hidden = true;
    this.#draw();
  }

  #zoomIn() {
    const [first, last] = this.#span();
    const { since, until, step } = this.#found;
    this.#leave();
    this.zoom(exact(since + first * step), exact(Math.min(until, since + (last + 1) * step)));
  }

  #listen() {
    let from = null;
    this.chart.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = this.#place(event);
      this.chart.setPointerCapture(event.pointerId);
      this.#choose(from, from);
    });
    this.chart.addEventListener("pointermove", (event) => {
      const place = this.#place(event);
      this.#choose(from ?? place, place);
    });
    this.chart.addEventListener("pointerup", () => {
      if (from === null) return;
      const [first, last] = this.#span();
      from = null;
      if (last > first) this.#zoomIn();
    });
    this.chart.addEventListener("pointercancel", () => {
      from = null;
      this.#leave();
    });
    this.chart.addEventListener("pointerleave", () => {
      if (from === null) this.#leave();
    });
    this.chart.addEventListener("blur", () => this.#leave());
    this.chart.addEventListener("keydown", (event) => {
      const last = this.#bars.length - 1;
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -last, End: last };
      if (event.key in steps) {
        const [start, at] = this.#chosen ?? [last + 1, last + 1];
        const next = Math.max(0, Math.min(last, at + steps[event.key]));
        this.#choose(event.shiftKey && this.#chosen ? start : next, next, true);
      } else if (event.key === "Enter" && this.#chosen) this.#zoomIn();
      else if (event.key === "Escape") this.#leave();
      else return;
      event.preventDefault();
    });
  }
}

/** The next round number. */
function nice(number) {
  const size = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 4, 5, 10].map((factor) => factor * size).find((round) => round >= number);
}

function short(number) {
  return number >= 10_000 ? `${number / 1000}k` : count(number);
}

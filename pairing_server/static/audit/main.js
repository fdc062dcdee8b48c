/** The page: log in, then the question in the address is answered whenever it changes. */

import { Api } from "./api.js";
import { Details } from "./details.js";
import { h } from "./dom.js";
import { Export } from "./export.js";
import { Filters } from "./filters.js";
import { logIn } from "./login.js";
import { ask, changed, count, current, shown } from "./question.js";
import { Seals } from "./seals.js";
import { Table } from "./table.js";
import { Timeline } from "./timeline.js";

const LIMIT = 100;
// How many short pages are loaded without asking the reviewer.
const ON = 10;
const WAIT = 20;

class Page {
  #question = current();
  #next = null;
  #asking = null;
  #following = null;
  /** How many answers are on their way. */
  #awaited = 0;

  constructor(api, stage) {
    this.api = api;
    this.stage = stage;
    this.filters = new Filters();
    this.timeline = new Timeline(
      (since, until) => ask(changed(this.#question, { since, until })),
      (outcome) => ask(changed(this.#question, { outcome: this.#question.outcome === outcome ? "" : outcome })),
    );
    this.table = new Table((event, names) => this.details.open(event, names));
    this.details = new Details(api);
    this.seals = new Seals();
    this.export = new Export(api, () => this.#question, (text, bad) => this.#tell(text, bad));
    this.problem = h("p", { class: "problem", role: "alert" });
    this.notice = h("p", { class: "notice muted", role: "status" });
    this.older = h("button", { type: "button", class: "quiet", onclick: () => this.#await(this.#load()), hidden: true }, "Show older events");
    this.live = h("input", { type: "checkbox", role: "switch", class: "switch", id: "live", onchange: () => this.#follow() });
    this.element = h(
      "div",
      { class: "page" },
      this.filters.element,
      h(
        "section",
        { class: "card", "aria-labelledby": "timeline-title" },
        h("header", { class: "head" }, h("h2", { id: "timeline-title" }, "Timeline"), this.filters.span, this.filters.ranges),
        this.timeline.element,
      ),
      h(
        "section",
        { class: "card", "aria-labelledby": "events-title" },
        h(
          "header",
          { class: "head" },
          h("h2", { id: "events-title" }, "Events"),
          h("span", { class: "live" }, this.live, h("label", { for: "live" }, "Live")),
          this.seals.element,
          this.export.element,
        ),
        this.problem,
        this.table.element,
        h("footer", { class: "foot" }, this.notice, this.older),
      ),
      this.details.element,
    );
  }

  /** Show the page and answer what the address asks. */
  begin() {
    this.stage.replaceChildren(this.element);
    this.#askAgain();
  }

  /** The address asks something. */
  #askAgain() {
    this.#asking?.abort();
    this.#asking = new AbortController();
    this.#question = current();
    this.filters.show(this.#question);
    this.table.clear();
    this.#next = null;
    this.older.hidden = true;
    this.problem.textContent = "";
    const { signal } = this.#asking;
    this.#await(this.#load(signal));
    this.#await(this.#draw(signal));
    this.#look(signal);
    this.#follow();
  }

  readdress() {
    if (this.api.loggedIn) this.#askAgain();
  }

  /** What is shown is not all of the answer before `answer` is there. */
  async #await(answer) {
    this.#awaited += 1;
    this.element.setAttribute("aria-busy", "true");
    await answer;
    this.#awaited -= 1;
    if (!this.#awaited) this.element.removeAttribute("aria-busy");
  }

  async #draw(signal) {
    await this.#try(signal, async () => {
      const found = await this.api.get("api/audit/timeline", this.#question, signal);
      this.filters.tell(found.since, found.until, this.timeline.show(found));
    });
  }

  async #look(signal) {
    try {
      this.seals.show(await this.api.get("api/audit/seals", {}, signal));
    } catch (error) {
      if (error.name !== "AbortError") this.seals.failed(error);
    }
  }

  /** The next page; several, where the server has looked far and found little. */
  async #load(signal = this.#asking.signal) {
    this.older.disabled = true;
    this.notice.textContent = "Searching …";
    const enough = this.table.size + LIMIT / 2;
    await this.#try(signal, async () => {
      for (let turn = 0; turn < ON; turn++) {
        const page = await this.api.get("api/audit", { ...this.#question, limit: LIMIT, after: this.#next }, signal);
        this.table.append(page);
        this.#next = page.next;
        if (page.next === null || this.table.size >= enough) break;
        this.notice.textContent = `Searched back to ${shown(placeOf(page.next))} UTC …`;
      }
      this.older.hidden = this.#next === null;
      this.older.textContent = this.table.size ? "Show older events" : "Search further back";
      const found = this.table.size ? `${count(this.table.size)} events shown` : "No events match";
      this.notice.textContent = this.#next ? `${found}, searched back to ${shown(placeOf(this.#next))} UTC.` : `${found}.`;
    });
    // Another question's search may be under way by now.
    if (!signal.aborted) this.older.disabled = false;
  }

  /** What comes from now on, while the switch is on and the question has no end. */
  async #follow() {
    this.#following?.abort();
    this.live.disabled = Boolean(this.#question.until);
    if (this.live.disabled) this.live.checked = false;
    if (!this.live.checked) return;
    const following = new AbortController();
    this.#following = following;
    const { since, until, ...which } = this.#question;
    await this.#try(following.signal, async () => {
      let after = null;
      while (!following.signal.aborted) {
        const news = await this.api.get("api/audit/follow", { ...which, after, wait: after ? WAIT : 0 }, following.signal);
        after = news.next;
        if (!news.events.length) continue;
        this.table.prepend(news);
        this.#tell(`${count(news.events.length)} new`);
        await this.#draw(following.signal);
      }
    });
    if (this.#following === following) this.live.checked = false;
  }

  async #try(signal, work) {
    try {
      await work();
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      this.notice.textContent = "";
      this.filters.span.textContent = "";
      this.timeline.clear();
      this.problem.textContent = error.text ?? error.message;
    }
  }

  #tell(text, bad = false) {
    if (bad) this.problem.textContent = text;
    else document.querySelector("#told").textContent = text;
    if (!bad) this.notice.textContent = text;
  }

  /** Let go of everything that is under way. */
  end() {
    this.#asking?.abort();
    this.#following?.abort();
    this.live.checked = false;
    this.details.element.close();
    this.element.remove();
  }
}

/** The time in a page's `next`. */
function placeOf(word) {
  return Number(atob(word.replaceAll("-", "+").replaceAll("_", "/")).split(".")[0]) / 1000;
}

const api = new Api();
const stage = document.querySelector("#stage");
const who = document.querySelector("#who");
const page = new Page(api, stage);

async function enter(why) {
  page.end();
  who.replaceChildren();
  await logIn(api, stage, why);
  const leave = async () => {
    await api.logOut();
    enter("You have logged out.");
  };
  who.replaceChildren(h("span", {}, api.username), h("button", { type: "button", class: "quiet", onclick: leave }, "Log out"));
  page.begin();
}

api.onexpired = () => enter("Your login has ended. Log in again; what you asked is kept.");
addEventListener("hashchange", () => page.readdress());
// One menu is open at a time, and none once something else is pressed.
addEventListener("pointerdown", ({ target }) => {
  for (const menu of document.querySelectorAll("details.more[open]")) if (!menu.contains(target)) menu.open = false;
});
addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return;
  const menu = document.querySelector("details.more[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
enter("For accounts with the role auditor or admin. Everything you ask here is recorded in the log.");

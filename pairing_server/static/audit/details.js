/** One event with all that is known of it, and the stories that it belongs to. */

import { h } from "./dom.js";
import { shown, story } from "./question.js";

const SEVERITIES = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

export class Details {
  #body = h("div", { class: "body" });

  constructor(api) {
    this.api = api;
    const title = h("h2", { id: "details-title" }, "Event");
    this.title = title;
    this.element = h(
      "dialog",
      { class: "drawer", "aria-labelledby": "details-title" },
      h("header", {}, title, h("button", { type: "button", class: "quiet", onclick: () => this.element.close() }, "Close")),
      this.#body,
    );
    this.element.addEventListener("click", (event) => {
      if (event.target === this.element) this.element.close();
    });
  }

  /** Open it for an event of the list; which seal it is in is asked for. */
  async open(event, names) {
    this.title.replaceChildren(event.event, " ", h("span", { class: `pill ${event.outcome}` }, event.outcome));
    const seal = h("dd", { class: "muted" }, "asking …");
    this.#body.replaceChildren(this.#stories(event, names), this.#facts(event, names, seal), this.#json(event));
    if (!this.element.open) this.element.showModal();
    try {
      const found = await this.api.get(`api/audit/events/${event.seq}`);
      seal.classList.toggle("muted", !found.seal);
      seal.textContent = found.seal ? `in seal ${found.seal.number} of ${shown(found.seal.sealed_at)} UTC` : "not yet";
    } catch (error) {
      seal.textContent = error.text ?? error.message;
    }
  }

  #stories({ pairing_id: pairing, connection_id: connection, address, actor }, names) {
    const tell = (label, parts) =>
      h("button", { type: "button", class: "quiet", onclick: () => (this.element.close(), story(parts)) }, label);
    const stories = [
      pairing && tell("This pairing’s story", { pairing }),
      address && tell("This address’s story", { address }),
      actor && tell(`The story of ${names[actor] ?? "this subject"}`, { actor }),
      connection && tell("This connection’s story", { connection }),
    ].filter(Boolean);
    return stories.length ? h("div", { class: "stories" }, stories) : "";
  }

  #facts(event, names, seal) {
    const known = [
      ["Number", event.seq],
      ["Recorded", `${shown(event.recorded_at)} UTC`],
      ["Occurred", `${shown(event.occurred_at)} UTC`],
      ["Severity", `${event.severity} ${SEVERITIES[event.severity]}`],
      ["Reason", event.reason],
      ["Count", event.count > 1 ? event.count : null],
      ["Who", event.actor ? (names[event.actor] ? `${names[event.actor]} (${event.actor})` : event.actor) : null],
      ["Kind of actor", event.actor_kind],
      ["Authenticated by", event.auth_method],
      ["Address", event.address],
      ["Pairing", event.pairing_id],
      ["Connection", event.connection_id],
      ["Request", event.request_id],
      ["Event id", event.event_id],
      ["Node", `${event.node}, version ${event.app_version}`],
      ...Object.entries(event.attrs).map(([name, value]) => [`· ${name}`, value]),
    ];
    const rows = known.filter(([, value]) => value !== null && value !== undefined);
    return h("dl", { class: "facts" }, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]), h("dt", {}, "Sealed"), seal);
  }

  #json(event) {
    return h("details", { class: "raw" }, h("summary", {}, "As JSON"), h("pre", { tabindex: "0" }, JSON.stringify(event, null, 2)));
  }
}

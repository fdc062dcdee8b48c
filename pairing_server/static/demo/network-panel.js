/** Makes one device's network bad, to watch it recover. */

import { h, uniqueId } from "./dom.js";
import { MODES } from "./network.js";

const TEXTS = { good: "Good", slow: "Slow", dead: "Drops all", offline: "Offline" };
const TOLD = {
  good: "Frames pass as they come.",
  slow: "Every frame takes 0.8 s each way.",
  dead: "Frames vanish and no side notices. Back on Good, the connection turns out to be dead.",
  offline: "No connection at all, until you switch back.",
};

export function networkPanel(network, name) {
  const group = uniqueId("network");
  const told = h("p", { class: "told", id: `${group}-told` }, TOLD[network.mode]);
  const choices = MODES.map((mode) => {
    const input = h("input", {
      type: "radio",
      name: group,
      id: `${group}-${mode}`,
      value: mode,
      checked: mode === network.mode,
      onchange: () => {
        network.mode = mode;
        told.textContent = TOLD[mode];
      },
    });
    return h("span", {}, input, h("label", { for: input.id }, TEXTS[mode]));
  });
  // A browser tells its pages when the network is back. Clients that are connected do not mind.
  network.addEventListener("back", () => window.dispatchEvent(new Event("online")));
  return h(
    "fieldset",
    { class: "network", "aria-describedby": `${group}-told` },
    h("legend", {}, "Network ", h("span", { class: "hidden" }, `of the ${name}`)),
    h("div", { class: "segments" }, choices),
    told,
    h(
      "div",
      { class: "acts" },
      h("button", { type: "button", class: "quiet", onclick: () => network.cut() }, "Cut the connection"),
      h("button", { type: "button", class: "quiet", onclick: () => network.expireToken() }, "Expire the token"),
    ),
  );
}

/** Messages between the two people who hold the devices. */

import { h, uniqueId } from "./dom.js";

const ACTION = "CHAT";
/** The server takes 64 KiB, which is more than a user types. */
const LONGEST = 500;
const KEPT = 100;

/** The element: what was said, and a line to say something. */
export function messagesPanel(client, peerName) {
  const id = uniqueId("message");
  const list = h("div", {
    class: "talk",
    role: "log",
    "aria-label": `Messages with the ${peerName}`,
    tabindex: "0",
  });
  const input = h("input", {
    id,
    name: "message",
    maxlength: LONGEST,
    autocomplete: "off",
    placeholder: `Message the ${peerName}`,
    enterkeyhint: "send",
  });
  const form = h(
    "form",
    { class: "say" },
    h("label", { for: id, class: "hidden" }, `Message the ${peerName}`),
    input,
    h("button", { type: "submit" }, "Send"),
  );

  const add = (text, mine) => {
    const state = mine ? h("span", { class: "state" }, "sending") : null;
    list.append(h("div", { class: mine ? "mine" : "theirs" }, h("p", {}, text), state));
    while (list.childElementCount > KEPT) list.firstElementChild.remove();
    list.scrollTop = list.scrollHeight;
    return state;
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    input.value = "";
    const state = add(text, true);
    try {
      await client.send({ action: ACTION, text });
      state.textContent = "relayed";
    } catch (error) {
      state.textContent = `not sent: ${error.message}`;
      state.classList.add("failed");
    }
  });
  client.on("message", ({ payload }) => {
    if (payload?.action === ACTION && typeof payload.text === "string") add(payload.text, false);
  });
  return h("div", { class: "messages" }, list, form);
}

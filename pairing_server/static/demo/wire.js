/** The live frames as they pass, of one device or of both. */

import { h, size } from "./dom.js";

/** Frames shown; older ones go. */
const KEPT = 150;

/** What one line says of a frame. */
function gist(message) {
  switch (message.type) {
    case "settings_sync":
      return (message.changed?.length ? message.changed : Object.keys(message.settings ?? {}))
        .map((key) => `${key}: ${JSON.stringify(message.settings?.[key])}`)
        .join(", ");
    case "channel_message":
      return message.payload?.text ?? JSON.stringify(message.payload);
    case "audio_chunk":
      return `${message.format ?? ""} ${message.chunk_id ?? ""}`.trim();
    case "error":
      return `${message.code}: ${message.message}`;
    default: {
      const rest = Object.entries(message).filter(([key, value]) => key !== "type" && typeof value !== "object");
      return rest.map(([key, value]) => `${key}: ${value}`).join(", ");
    }
  }
}

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { type: "text" };
  }
}

/** A list of frames. `add(client, name)` shows those of a client from now on. */
export function wirePanel() {
  const list = h("ol", { class: "frames", tabindex: "0", "aria-label": "Frames, newest first" });
  const empty = h("p", { class: "empty" }, "Every frame between a device and the server appears here.");
  const noisy = h("input", { type: "checkbox", class: "switch", id: "wire-noisy" });
  const pause = h("button", { type: "button", class: "quiet", "aria-pressed": "false" }, "Pause");
  const clear = h("button", { type: "button", class: "quiet" }, "Clear");
  const counts = h("p", { class: "counts" });
  const seen = { in: 0, out: 0, bytes: 0 };
  let paused = false;

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Continue" : "Pause";
  });
  clear.addEventListener("click", () => {
    list.replaceChildren();
    empty.hidden = false;
  });
  noisy.addEventListener("change", () => list.classList.toggle("all", noisy.checked));

  const show = (name, kind, { direction, text, bytes }) => {
    const length = bytes ?? new TextEncoder().encode(text ?? "").length;
    seen[direction] += 1;
    seen.bytes += length;
    counts.textContent = `${seen.out} sent, ${seen.in} received, ${size(seen.bytes)}`;
    if (paused) return;
    empty.hidden = true;
    list.prepend(row(name, kind, direction, text, length));
    while (list.childElementCount > KEPT) list.lastElementChild.remove();
  };

  return {
    add(client, name, kind) {
      return client.on("frame", (frame) => show(name, kind, frame));
    },
    element: h(
      "div",
      { class: "wire" },
      h(
        "div",
        { class: "bar" },
        counts,
        h("label", { class: "inline", for: "wire-noisy" }, noisy, "pings"),
        pause,
        clear,
      ),
      empty,
      list,
    ),
  };
}

function row(name, kind, direction, text, length) {
  const message = text === undefined ? { type: "audio_chunk", format: "binary" } : read(text);
  const outward = direction === "out";
  const quiet = message.type === "ping" || message.type === "pong";
  const body = text === undefined ? "Binary frame: 12 bytes of header, chunk id, format, then the audio as it is." : pretty(message);
  return h(
    "li",
    { class: `${kind} ${direction}${quiet ? " quiet" : ""}${message.type === "error" ? " failed" : ""}` },
    h(
      "details",
      {},
      h(
        "summary",
        {},
        h("span", { class: "who" }, name),
        h("span", { class: "way", "aria-hidden": "true" }, outward ? "↑" : "↓"),
        h("span", { class: "hidden" }, outward ? "sends" : "receives"),
        h("code", { class: "type" }, message.type ?? "?"),
        h("span", { class: "gist" }, gist(message)),
        h("span", { class: "size" }, size(length)),
      ),
      h("pre", {}, body),
    ),
  );
}

/** Indented; long strings, such as audio in Base64, are cut. */
function pretty(message) {
  const cut = (_, value) => (typeof value === "string" && value.length > 300 ? `${value.slice(0, 300)}…` : value);
  return JSON.stringify(message, cut, 2);
}

/** The audio settings, on sliders and switches that move on both devices. */

import { h, uniqueId } from "./dom.js";

const FIELDS = [
  { key: "audioGain", label: "Gain", min: 0, max: 100, step: 1, unit: "%", start: 75 },
  { key: "chunkDuration", label: "Chunk duration", min: 0.5, max: 10, step: 0.5, unit: "s", start: 3 },
  { key: "overlapPercent", label: "Overlap", min: 0, max: 50, step: 1, unit: "%", start: 15 },
  { key: "paragraphBreakDuration", label: "Paragraph break", min: 0.5, max: 5, step: 0.5, unit: "s", start: 2 },
  { key: "autoGainEnabled", label: "Auto gain", start: true },
  { key: "vadEnabled", label: "Detect voice", start: false },
  {
    key: "language",
    label: "Language",
    start: "nl",
    choices: { nl: "Dutch", en: "English", fr: "French", de: "German", es: "Spanish" },
  },
  {
    key: "model",
    label: "Model",
    start: "whisper-1",
    choices: { "whisper-1": "whisper-1", "whisper-large-v3": "whisper-large-v3", "whisper-tiny": "whisper-tiny" },
  },
];

/** Moves of a slider are sent at most once in so many milliseconds; the last one always is. */
const PACE = 40;

/** The element, whose values follow the client's settings and are synced by it. */
export function settingsPanel(client) {
  const values = Object.fromEntries(FIELDS.map(({ key, start }) => [key, start]));
  const controls = new Map();
  let timer = null;
  let moved = {};

  const send = () => {
    timer = null;
    client.syncSettings(moved);
    moved = {};
  };
  const change = (key, value) => {
    values[key] = moved[key] = value;
    timer ??= setTimeout(send, PACE);
  };
  const apply = (settings) => {
    for (const { key } of FIELDS) {
      if (!(key in settings) || settings[key] === values[key]) continue;
      values[key] = settings[key];
      controls.get(key).show(settings[key]);
    }
  };

  const rows = FIELDS.map((field) => {
    const control = make(field, (value) => change(field.key, value));
    control.show(field.start);
    controls.set(field.key, control);
    return control.row;
  });
  client.offerSettings(values);
  apply(client.settings);
  client.on("settings", ({ settings }) => apply(settings));
  return h("div", { class: "settings" }, rows);
}

function make(field, changed) {
  if (field.choices) return select(field, changed);
  return typeof field.start === "boolean" ? toggle(field, changed) : slider(field, changed);
}

function slider({ key, label, min, max, step, unit }, changed) {
  const id = uniqueId(key);
  const shown = h("span", { class: "value", "aria-hidden": "true" });
  const input = h("input", { type: "range", id, name: key, min, max, step });
  const show = (value) => {
    const place = (value - min) / (max - min);
    input.value = value;
    input.style.setProperty("--filled", `${Math.min(1, Math.max(0, place)) * 100}%`);
    input.setAttribute("aria-valuetext", `${value} ${unit === "s" ? "seconds" : "percent"}`);
    shown.textContent = `${value} ${unit}`;
  };
  input.addEventListener("input", () => {
    show(input.valueAsNumber);
    changed(input.valueAsNumber);
  });
  return { show, row: h("div", { class: "field" }, h("label", { for: id }, label), input, shown) };
}

function toggle({ key, label }, changed) {
  const id = uniqueId(key);
  const input = h("input", { type: "checkbox", role: "switch", class: "switch", id, name: key });
  input.addEventListener("change", () => changed(input.checked));
  const show = (value) => {
    input.checked = value === true;
  };
  return { show, row: h("div", { class: "field short" }, h("label", { for: id }, label), input) };
}

function select({ key, label, choices }, changed) {
  const id = uniqueId(key);
  const input = h(
    "select",
    { id, name: key },
    Object.entries(choices).map(([value, text]) => h("option", { value }, text)),
  );
  input.addEventListener("change", () => changed(input.value));
  const show = (value) => {
    if (!(value in choices)) input.append(h("option", { value }, String(value)));
    input.value = value;
  };
  return { show, row: h("div", { class: "field choice" }, h("label", { for: id }, label), input) };
}

/** Building elements. No HTML from strings: what the other device sends is text, and cannot change the direction of the text around it. */

/**
 * An element. Attributes that are true stand empty, those that are false, null or undefined are left out,
 * and `onclick: f` and the like listen. Children are elements, text, or nothing.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : READ.has(name) ? plain(value) : value);
    }
  }
  const shown = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...shown.map((child) => (typeof child === "string" ? plain(child) : child)));
  return element;
}

// Attributes that a person reads.
const READ = new Set(["title", "aria-label"]);

/** The text with an escape for each control and direction character, but for tabs and ends of lines. */
export function plain(text) {
  return String(text).replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/gu, (sign) =>
    sign === "\n" || sign === "\t" ? sign : `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`,
  );
}

let made = 0;

/** An id that no other element of the page has. */
export function uniqueId(stem) {
  return `${stem}-${++made}`;
}

/** 300 → "5:00". */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** 2048 → "2.0 KiB". */
export function size(bytes) {
  return bytes < 1024 ? `${bytes} B` : `${(bytes / 1024).toFixed(1)} KiB`;
}

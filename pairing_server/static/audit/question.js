/** What is asked: it stands in the page's address, so that it can be kept, sent on and gone back to. No token does. */

export const PARTS = ["since", "until", "event", "user", "actor", "address", "pairing", "connection", "outcome", "severity"];
export const RANGES = [["1h", "1 hour"], ["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"], ["365d", "1 year"]];
const LABELS = {
  event: "event",
  user: "user",
  actor: "subject",
  address: "address",
  pairing: "pairing",
  connection: "connection",
  outcome: "outcome",
  severity: "severity from",
};

/** The question in the address. */
export function current() {
  const given = new URLSearchParams(location.hash.slice(1));
  const question = {};
  for (const name of PARTS) {
    const value = given.get(name)?.trim();
    if (value) question[name] = value;
  }
  if (!question.since && !question.until) question.since = "24h";
  return question;
}

/** Ask something else: a step that the browser's Back undoes. */
export function ask(question) {
  const given = PARTS.filter((name) => question[name]).map((name) => [name, question[name]]);
  location.hash = new URLSearchParams(given).toString();
}

/** The question with some parts changed; empty ones are taken away. */
export function changed(question, parts) {
  return { ...question, ...parts };
}

/** Everything about one thing, whenever it was. */
export function story(parts) {
  ask({ since: "365d", ...parts });
}

/** The parts that narrow the question, but for the time, each with its label. */
export function narrowing(question) {
  return PARTS.slice(2).filter((name) => question[name]).map((name) => [name, LABELS[name], question[name]]);
}

const pad = (number, width = 2) => String(number).padStart(width, "0");

/** 2026-11-25 18:04:09, in UTC like everything here. */
export function shown(at, seconds = true) {
  const date = new Date(at);
  const day = `${date.getUTCFullYear()}-${pad(date.getUTCMonth() + 1)}-${pad(date.getUTCDate())}`;
  const time = `${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}`;
  return `${day} ${time}${seconds ? `:${pad(date.getUTCSeconds())}` : ""}`;
}

/** The form of a time in the address and for the server. */
export function exact(at) {
  return new Date(at).toISOString().replace(".000Z", "Z");
}

export function count(number) {
  return number.toLocaleString("en-GB");
}

/** Keeps a part of a Zustand store in step with the other device. Any store with the same three methods will do. */

import { isPlain, jsonOf } from "./settings.js";

/** How a pick is read from the state, and how settings become a change of it. */
function ways(pick, apply) {
  if (typeof pick === "function") return { read: pick, write: apply };
  if (typeof pick === "string") {
    return { read: (state) => state[pick], write: (settings, state) => ({ [pick]: { ...state[pick], ...settings } }) };
  }
  return { read: (state) => Object.fromEntries(pick.map((key) => [key, state[key]])), write: (settings) => settings };
}

/** Whether the store has another value. What cannot be shared is the store's own affair. */
function differs(own, value) {
  const { text, reason } = jsonOf(own);
  return own === undefined || (!reason && text !== JSON.stringify(value));
}

/** The value, with the functions that the store's own has at the same places. */
function merged(own, value) {
  if (!isPlain(own) || !isPlain(value)) return value;
  const entries = Object.entries(value).map(([key, each]) => [key, Object.hasOwn(own, key) ? merged(own[key], each) : each]);
  const functions = Object.entries(own).flatMap(([key, each]) => {
    if (Object.hasOwn(value, key)) return [];
    const kept = isPlain(each) ? merged(each, {}) : each;
    return typeof kept === "function" || (isPlain(kept) && Object.keys(kept).length) ? [[key, kept]] : [];
  });
  return Object.fromEntries([...entries, ...functions]);
}

/** Store → the client and the JSON texts of what was shared when that ended: what differs when it goes on was edited in between. */
const stopped = new WeakMap();

function rest(store, client, own) {
  const texts = stopped.get(store)?.client === client ? stopped.get(store).texts : new Map();
  for (const [key, value] of Object.entries(own)) texts.set(key, jsonOf(value).text);
  stopped.set(store, { client, texts });
}

/** What was edited since it ended. */
function editedAtRest(store, client, own) {
  const { client: former, texts } = stopped.get(store) ?? {};
  if (former !== client) return {};
  const edited = Object.entries(own).filter(([key, value]) => texts.has(key) && texts.get(key) !== jsonOf(value).text);
  for (const key of Object.keys(own)) texts.delete(key);
  return Object.fromEntries(edited);
}

/** See zustand.d.ts. */
export function pairSync(store, client, { pick, apply }) {
  const { read, write } = ways(pick, apply);
  let applying = false;
  // The persist middleware sets old values when it has read them; they are no edit. Then the store has its first state.
  const hydrated = () => store.persist?.hasHydrated() ?? true;

  const send = () => {
    if (!applying && hydrated()) client.syncSettings(read(store.getState()));
  };
  const receive = (settings) => {
    if (!hydrated()) return;
    const state = store.getState();
    const own = read(state);
    const news = Object.entries(settings).filter(([key, value]) => Object.hasOwn(own, key) && differs(own[key], value));
    if (!news.length) return;
    applying = true;
    try {
      store.setState(write(Object.fromEntries(news.map(([key, value]) => [key, merged(own[key], value)])), state));
    } finally {
      applying = false;
    }
  };

  const take = ({ settings, changed }) => receive(Object.fromEntries(changed.map((key) => [key, settings[key]])));
  const warn = ({ key, reason }) => {
    if (Object.hasOwn(read(store.getState()), key)) console.warn(`The setting "${key}" of the store is not shared: ${reason}.`);
  };
  // Before the first values are offered.
  const quiet = client.on("settings-refused", warn);
  const begin = () => {
    const own = read(store.getState());
    client.syncSettings(editedAtRest(store, client, own));
    client.offerSettings(own);
    receive(client.settings);
  };
  if (hydrated()) begin();
  const stops = [
    store.persist?.onFinishHydration(begin) ?? (() => {}),
    quiet,
    store.subscribe(send),
    client.on("settings", take),
    // Another store of this page may have the same key.
    client.on("settings-edited", take),
  ];
  let running = true;
  return () => {
    if (running && hydrated()) rest(store, client, read(store.getState()));
    running = false;
    stops.forEach((stop) => stop());
  };
}

/** The same as a middleware: `create(paired(initializer, client, { pick }))`. */
export const paired = (initializer, client, options) => (set, get, store) => {
  // The store has its first state once the initializer has returned.
  queueMicrotask(() => pairSync(store, client, options));
  return initializer(set, get, store);
};

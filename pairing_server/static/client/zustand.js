/** Keeps a part of a Zustand store in step with the other device. Any store with the same three methods will do. */

/** How a pick is read from the state, and how settings become a change of it. */
function ways(pick, apply) {
  if (typeof pick === "function") return { read: pick, write: apply };
  if (typeof pick === "string") {
    return { read: (state) => state[pick], write: (settings, state) => ({ [pick]: { ...state[pick], ...settings } }) };
  }
  return { read: (state) => Object.fromEntries(pick.map((key) => [key, state[key]])), write: (settings) => settings };
}

/** See zustand.d.ts. */
export function pairSync(store, client, { pick, apply }) {
  const { read, write } = ways(pick, apply);
  let applying = false;

  const send = () => {
    if (!applying) client.syncSettings(read(store.getState()));
  };
  const receive = (settings) => {
    const state = store.getState();
    const own = read(state);
    const news = Object.entries(settings).filter(([key, value]) => key in own && own[key] !== value);
    if (!news.length) return;
    applying = true;
    try {
      store.setState(write(Object.fromEntries(news), state));
    } finally {
      applying = false;
    }
  };

  client.offerSettings(read(store.getState()));
  receive(client.settings);
  const stops = [
    store.subscribe(send),
    client.on("settings", ({ settings, changed }) => receive(Object.fromEntries(changed.map((key) => [key, settings[key]])))),
  ];
  return () => stops.forEach((stop) => stop());
}

/** The same as a middleware: `create(paired(initializer, client, { pick }))`. */
export const paired = (initializer, client, options) => (set, get, store) => {
  // The store has its first state once the initializer has returned.
  queueMicrotask(() => pairSync(store, client, options));
  return initializer(set, get, store);
};

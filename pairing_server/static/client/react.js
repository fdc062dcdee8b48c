/** A pairing in React. React is the caller's own: the name is resolved by a bundler or by the page's import map. */

import { useSyncExternalStore } from "react";

const EVENTS = ["state", "paired", "peer-joined", "peer-left", "settings", "settings-edited"];
const watches = new WeakMap();

/** One for each client: what components show of it, made anew when that changes. */
function watch(client) {
  const listeners = new Set();
  let error = null;
  let shown;

  const look = () => {
    const { state, channel, code, peerPresent, settings, lastError } = client;
    shown = Object.freeze({
      state,
      isConnected: state === "waiting" || state === "paired",
      isPaired: state === "paired",
      pairingCode: code && code.channel === channel ? code.code : null,
      peerPresent,
      settings,
      error: lastError?.retryAt ? lastError.error : error,
      ...acts,
    });
    for (const listener of listeners) listener();
  };
  const fail = (wrong) => {
    error = wrong;
    look();
  };
  const attempt = async (act) => {
    error = null;
    try {
      return await act();
    } catch (wrong) {
      error = wrong;
      return undefined;
    } finally {
      look();
    }
  };
  const acts = {
    generateCode: () => attempt(async () => (await client.generateCode()).code),
    pairWithCode: (code) => attempt(() => client.pair(code).then(() => true)).then(Boolean),
    unpair: () => attempt(() => client.unpair()),
    send: (payload) => client.send(payload),
    syncSettings: (settings) => client.syncSettings(settings),
  };

  for (const event of EVENTS) client.on(event, look);
  client.on("state", (state, why) => state === "closed" && why.code !== "CLOSED" && fail(why));
  client.on("error", (wrong, about) => (about ? look() : fail(wrong)));
  look();
  return {
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    read: () => shown,
  };
}

/** See react.d.ts. */
export function usePairing(client) {
  if (!watches.has(client)) watches.set(client, watch(client));
  const { subscribe, read } = watches.get(client);
  return useSyncExternalStore(subscribe, read, read);
}

import type { PairingClient } from "./pairing.js";

/** What is used of a store: Zustand's have it, with or without React. */
export interface Store<S> {
  getState(): S;
  setState(change: Partial<S>): void;
  subscribe(listener: (state: S, before: S) => void): () => void;
  /** Of Zustand's `persist`: nothing is shared before it has read its storage. */
  persist?: { hasHydrated(): boolean; onFinishHydration(listener: (state: S) => void): () => void };
}

/**
 * What is shared, as one flat object of settings:
 * - `"audioSettings"`: the entries of that slice, as the original clients send them
 * - `["gain", "theme"]`: these keys of the state
 * - a function that makes it from the state, and `apply`, which makes a change of the state from settings that are new
 */
export type Pick<S> =
  | { pick: keyof S & string; apply?: undefined }
  | { pick: readonly (keyof S & string)[]; apply?: undefined }
  | { pick: (state: S) => object; apply: (news: any, state: S) => Partial<S> };

/**
 * Keeps the picked part of the store in step with the other device, until the function that it returns is called.
 *
 * What the store holds at the start fills only what neither device has set. What comes from the other device is applied
 * and never sent again. All changes within one task go as one message. Only keys that the picked part has are taken.
 *
 * Called again for the same store, as a component does that is mounted again, it sends what was edited in between.
 *
 * Values are compared by their JSON text. What JSON does not hold (a Date, a Map, NaN, a function) stays as it is in this store,
 * and the client's event `settings-refused` names it. A nested object keeps the functions that it has here.
 */
export declare function pairSync<S>(store: Store<S>, client: PairingClient, options: Pick<S>): () => void;

/** The same as a middleware: `create(paired(initializer, client, { pick }))`. */
export declare function paired<I extends (set: any, get: any, store: any) => any>(initializer: I, client: PairingClient, options: Pick<ReturnType<I>>): I;

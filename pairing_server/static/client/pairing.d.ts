/** What JSON can hold. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export type DeviceType = "desktop" | "mobile";

/**
 * - `idle`: nothing was asked of it yet
 * - `connecting`: on the way into the channel, for the first time
 * - `waiting`: in the channel, alone
 * - `paired`: in the channel with the other device. Nothing else means paired.
 * - `reconnecting`: the connection broke and will come back by itself
 * - `closed`: it will not; the second argument of the event says why
 */
export type State = "idle" | "connecting" | "waiting" | "paired" | "reconnecting" | "closed";

/**
 * What went wrong. `code` is one of the protocol's error codes, or one of the client's own: `CLOSED` (by `close()`, or by the
 * server without a word), `QUEUE_FULL`, `UNREACHABLE`. `cause` is what the runtime has said, `details.url` where.
 */
export declare class PairingError extends Error {
  readonly code: string;
  readonly details: Record<string, any>;
  /** The very same may succeed later. */
  readonly retryable: boolean;
  /** The HTTP status, 0 where it was none. */
  readonly status: number;
  /** Seconds to wait, 0 if the server has not said. */
  readonly retryAfter: number;
}

export interface PairingOptions {
  deviceType: DeviceType;
  /**
   * Gives an access token of the server, or of an issuer it trusts, each time one is needed; nothing is kept of it.
   * `refused` is true if the server has just refused the last one. If it throws an error whose `retryable` is false, the
   * client closes; after any other it tries again.
   */
  accessToken(refused: boolean): string | Promise<string>;
  /** Where ws tokens come from, for apps whose own backend asks for them. By default the client asks with `accessToken`. */
  wsToken?(): Promise<{ token: string; expires_in: number }>;
  /** The server, an absolute URL; by default the page's own origin, looked up on connecting. HTTP and WebSocket both go there. */
  url?: string;
  /** By what a proxy finds the server process of the pair, where there are several: both devices give the same, such as the account's id. */
  group?: string;
  /** Keeps the session id and the channel, so that a reload comes back. By default the tab's `sessionStorage`, else memory. */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
  fetch?: typeof fetch;
  webSocket?: typeof WebSocket;
  /** Milliseconds between two pings; 20,000 by default. */
  heartbeat?: number;
  /** Log each step and frame on the console; values by names of secrets are left out. By default what `localStorage["pairing:debug"]` says. */
  debug?: boolean;
}

export interface LastError {
  /** Also what `accessToken` or `wsToken` has thrown. */
  readonly error: Error & Partial<PairingError>;
  readonly retryAt: Date | null;
}

export interface PairingCode {
  /** Six digits; a string, since it may begin with 0. */
  code: string;
  channel: string;
  expiresAt: Date;
  /** What a QR code for the phone holds. */
  uri: string;
}

export interface Ack {
  id: string;
  seq: number;
}

export interface Message {
  payload: JsonObject;
  seq: number;
  id?: string | number;
}

export interface AudioAbout {
  chunkId?: string;
  /** For instance `audio/webm;codecs=opus`. */
  format?: string;
  sampleRate?: number;
}

export interface AudioChunk extends AudioAbout {
  /** A string only if the sender's was no base64. */
  data: Uint8Array | string;
  seq: number;
}

/** `not_recovered`: messages may be missing for good. Any other reason: the audio chunks `from` to `to` were dropped. */
export interface Gap {
  reason: "not_recovered" | "slow_consumer" | (string & {});
  from?: number;
  to?: number;
}

/**
 * - `invalid_key`: a key has 1 to 128 characters
 * - `not_json`: JSON does not hold it, such as a Date, a Map, NaN, a function, a BigInt, or a cycle
 * - `too_deep`: more than 15 levels
 * - `too_large`: all settings together would have more than about 16,000 bytes
 * - `too_many`: there would be more than 64
 */
export type SettingRefusal = "invalid_key" | "not_json" | "too_deep" | "too_large" | "too_many";

export interface Events {
  state: (state: State, why?: PairingError) => void;
  /** Both devices are in the channel: for the first time, or again. */
  paired: (about: { channel: string }) => void;
  "peer-joined": (about: { sessionId: string }) => void;
  /** `final`: it will not come back, and the client closes. */
  "peer-left": (about: { sessionId: string; final: boolean; reason: string }) => void;
  message: (message: Message) => void;
  /** The other device, or the channel on joining, has changed these. Never what this device has set itself. */
  settings: (about: { settings: Readonly<JsonObject>; changed: string[] }) => void;
  /** This device has changed these itself: another part of the page may want to know. */
  "settings-edited": (about: { settings: Readonly<JsonObject>; changed: string[] }) => void;
  /** This device's value of a setting cannot be shared; all others are. Told once, until the value changes. */
  "settings-refused": (about: { key: string; reason: SettingRefusal }) => void;
  audio: (chunk: AudioChunk) => void;
  /**
   * Desktop: the server sees an attack on codes, and a phone of another account has sent this one's. Show what it calls itself and
   * where it is, ask the user, and call `answerRequest`. Without an answer the code ends in `expiresIn` seconds.
   */
  "pairing-request": (about: { device?: string; address?: string; expiresIn: number }) => void;
  /** Phone: the desktop is asked; `pair` goes on by itself as soon as it has said yes. */
  "confirmation-needed": (about: { expiresIn: number }) => void;
  gap: (gap: Gap) => void;
  /**
   * The server has refused a message, and the connection stays open; or, with `retryAt`, a try to connect has failed and the next one
   * comes then. An error that ends it comes with `state`.
   */
  error: (error: Error & Partial<PairingError>, about?: { retryAt: Date }) => void;
  /** Each frame as it passes, for tools that show them. Tokens are left out. */
  frame: (frame: { direction: "in" | "out"; text?: string; bytes?: number }) => void;
}

/**
 * One device of a pairing.
 *
 * It comes back by itself when the connection breaks, at once when the page wakes or the network returns. Messages that it has
 * accepted arrive once and in order, or their promise is rejected, or the other side gets a `gap`.
 */
export declare class PairingClient {
  constructor(options: PairingOptions);

  readonly state: State;
  /** Why it is not in the channel, and when it tries again: null if it does not by itself. Null while it is in the channel. */
  readonly lastError: LastError | null;
  /** The channel's name, or null: there is nothing to come back to. */
  readonly channel: string | null;
  /** What `generateCode` last gave. */
  readonly code: PairingCode | null;
  readonly sessionId: string;
  readonly peerPresent: boolean;
  /** The settings as this device holds them, its own edits included. */
  readonly settings: Readonly<JsonObject>;
  /** Milliseconds to the server and back, or null. */
  readonly latency: number | null;
  /** Messages without an ack so far. */
  readonly queued: number;

  /** Returns a function that ends it. A type of message that this client does not know is an event of that name. */
  on<E extends keyof Events>(event: E, listener: Events[E]): () => void;
  on(event: string, listener: (message: any) => void): () => void;

  /** Desktop: a new code, and on the way into its channel. The former code is void, and a running channel is left. */
  generateCode(): Promise<PairingCode>;

  /** Phone: resolves once it is in the channel of that code. */
  pair(code: string): Promise<void>;

  /** Desktop: whether the phone of the last `pairing-request` is wanted. If not, its code ends. */
  answerRequest(wanted: boolean): void;

  /**
   * Into the channel that `storage` remembers, for instance after a reload. Resolves once it is there. Rejects if there is none or it
   * has ended; also, though the client goes on trying, after twelve seconds, or at once if `accessToken` throws. `lastError` has the reason.
   */
  connect(): Promise<void>;

  /**
   * Says something to the other device. Resolves when the channel has taken it, whether the other is there or not. Without a
   * connection it waits, with up to 255 others or 1 MiB; beyond that it is `QUEUE_FULL`.
   */
  send(payload: object): Promise<Ack>;

  /** Sets some or all settings. Only what differs is sent; all of one task go as one message; the last one always arrives. */
  syncSettings(settings: object): void;

  /** Values for settings that neither device has set. */
  offerSettings(settings: object): void;

  /**
   * Live: false if it was dropped, since there is no connection or it does not keep up. Bytes go as a binary frame; a string
   * must be base64.
   */
  sendAudio(sound: Blob | ArrayBuffer | ArrayBufferView | string, about?: AudioAbout): boolean;

  /** Ends the pairing for both. Resolves once the server has said so. */
  unpair(): Promise<void>;

  /** Leaves without ending the pairing; `connect()` comes back. What waits to be sent is rejected. */
  close(): void;
}

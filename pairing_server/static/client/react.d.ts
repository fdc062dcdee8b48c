import type { Ack, JsonObject, PairingClient, PairingError, State } from "./pairing.js";

export interface Pairing {
  readonly state: State;
  readonly isConnected: boolean;
  /** Both devices are there, as the server has said. */
  readonly isPaired: boolean;
  /** The code to show, while it is this client's channel. */
  readonly pairingCode: string | null;
  readonly peerPresent: boolean;
  readonly settings: Readonly<JsonObject>;
  /** What went wrong last, also while the client tries to connect; null again with the next try, or once it is connected. */
  readonly error: (Error & Partial<PairingError>) | null;
  /** The code, or undefined if there is none; `error` says why. */
  generateCode(): Promise<string | undefined>;
  /** True once this phone is in the channel; false if not, and `error` says why. */
  pairWithCode(code: string): Promise<boolean>;
  unpair(): Promise<void>;
  send(payload: object): Promise<Ack>;
  syncSettings(settings: object): void;
}

/** The pairing of that client. Make the client once, outside the component. The functions stay the same ones. */
export declare function usePairing(client: PairingClient): Pairing;

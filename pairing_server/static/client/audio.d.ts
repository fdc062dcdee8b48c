import type { AudioAbout, AudioChunk } from "./pairing.js";

export interface Microphone {
  readonly stream: MediaStream;
  stop(): void;
}

/**
 * Records the microphone. `onChunk` gets about ten chunks a second, to be handed to `PairingClient.sendAudio`; if it answers false,
 * as `sendAudio` does, that chunk is lost and the recording begins anew, so that the other side can decode what follows.
 * `onLevel` the loudness from 0 to 1, twenty times a second. Rejects with what `getUserMedia` throws, `NotAllowedError` for
 * instance, and with `SecurityError` on a page by http:// from another machine: browsers have no microphone there.
 */
export declare function startMicrophone(options: {
  onChunk(chunk: Blob, about: Required<AudioAbout>): unknown;
  onLevel?(level: number): void;
  constraints?: boolean | MediaTrackConstraints;
}): Promise<Microphone>;

/** Plays what `PairingClient` gives with its event `audio`. A browser keeps a page silent until its user has touched it. */
export declare class AudioPlayer {
  constructor(options?: { onLevel?(level: number): void });
  push(chunk: Pick<AudioChunk, "data" | "format">): void;
  muted: boolean;
  /** Seconds of sound that were decoded. */
  readonly seconds: number;
  stop(): void;
}

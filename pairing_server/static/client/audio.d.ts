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
  /** It has ended though nobody called `stop()`: unplugged, no longer allowed, failed. It is released; the text is for its user. */
  onEnded?(error: Error): void;
  /** The device is silent for now, for instance during a call on a phone; then it is not any more. */
  onMuted?(muted: boolean): void;
  constraints?: boolean | MediaTrackConstraints;
}): Promise<Microphone>;

/** Plays what `PairingClient` gives with its event `audio`. A browser keeps a page silent until its user has touched it. */
export declare class AudioPlayer {
  /** `onError`: what came cannot be played, each reason once; by default it is a warning on the console. */
  constructor(options?: { onLevel?(level: number): void; onError?(error: Error): void });
  push(chunk: Pick<AudioChunk, "data" | "format">): void;
  muted: boolean;
  /** Seconds of sound that were decoded. */
  readonly seconds: number;
  stop(): void;
}

/** Sound between two devices: the microphone in chunks, and chunks from the other side out of the loudspeaker. */

/** Milliseconds a chunk; the server takes up to 20 a second. */
const CHUNK = 100;
const BITS_PER_SECOND = 32_000;
/** What recorders write, best first: the other side must be able to begin in the middle, which WebM and Ogg allow. */
const FORMATS = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4;codecs=mp4a.40.2", "audio/mp4"];
/** Short names that other clients give. */
const SHORT = { webm: FORMATS[0], ogg: FORMATS[1], mp4: FORMATS[2] };
/** Bytes at least in a recording's first chunk: by them others know that it begins. A busy recorder gives one byte first. */
const BEGINNING = 16;
const LEVEL_EVERY = 50;
/** Milliseconds until it is tried again whether chunks can be sent. */
const AGAIN_AFTER = 300;
/** Seconds that the sound may lag behind before it skips, and that are kept once heard. */
const LAG = 1.5;
const TARGET_LAG = 0.2;
const KEPT = 20;
const GESTURES = ["pointerdown", "keydown"];

/** Calls `onLevel` with 0 to 1 as long as it runs: sixty decibels. */
class Meter {
  #samples;
  #timer;

  constructor(context, onLevel) {
    this.node = context.createAnalyser();
    this.node.fftSize = 1024;
    this.#samples = new Float32Array(this.node.fftSize);
    if (onLevel) this.#timer = setInterval(() => onLevel(this.#level()), LEVEL_EVERY);
  }

  #level() {
    this.node.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length;
    return power && Math.max(0, Math.min(1, 1 + Math.log10(power) / 6));
  }

  stop() {
    clearInterval(this.#timer);
  }
}

/** See audio.d.ts. Throws what `getUserMedia` throws. */
export async function startMicrophone({ onChunk, onLevel, onEnded, onMuted, constraints = true }) {
  if (!globalThis.navigator?.mediaDevices) throw new DOMException("The microphone needs a page from https:// or from this machine.", "SecurityError");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: constraints });
  const [track] = stream.getAudioTracks();
  const context = new AudioContext();
  const meter = new Meter(context, onLevel);
  const mimeType = FORMATS.find((format) => MediaRecorder.isTypeSupported(format));
  const sampleRate = track.getSettings().sampleRate ?? context.sampleRate;
  let recorder;
  let number = 0;
  let again;
  let stopped = false;

  const stop = () => {
    if (stopped) return;
    stopped = true;
    clearTimeout(again);
    if (recorder?.state === "recording") recorder.stop();
    for (const each of stream.getTracks()) each.stop();
    meter.stop();
    context.close();
  };
  const end = (text, cause) => {
    if (stopped) return;
    stop();
    onEnded?.(new Error(text, { cause }));
  };
  const record = () => {
    const mine = new MediaRecorder(stream, { mimeType, audioBitsPerSecond: BITS_PER_SECOND });
    // Bytes of the beginning that are kept until there are enough; null once it is out.
    let begun = [];
    mine.addEventListener("dataavailable", ({ data }) => {
      if (mine !== recorder || !data.size) return;
      if (begun) {
        begun.push(data);
        data = new Blob(begun, { type: data.type });
        if (data.size < BEGINNING) return;
        begun = null;
      }
      if (onChunk(data, { format: mine.mimeType, sampleRate, chunkId: String(++number) }) !== false) return;
      // A decoder does not get over a hole: what follows is a recording of its own.
      recorder = null;
      mine.stop();
      again = setTimeout(record, AGAIN_AFTER);
    });
    mine.addEventListener("error", ({ error }) => end("The recording has failed. Start the microphone again.", error));
    recorder = mine;
    mine.start(CHUNK);
  };
  track.addEventListener("ended", () => end("The microphone is gone. Plug it in or allow it, and start it again."));
  for (const event of ["mute", "unmute"]) track.addEventListener(event, () => onMuted?.(event === "mute"));
  try {
    context.createMediaStreamSource(stream).connect(meter.node);
    record();
  } catch (error) {
    stop();
    throw error;
  }
  return { stream, stop };
}

const base64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const startsWith = (data, ...bytes) => bytes.every((byte, at) => data[at] === byte);
/** Whether a stream begins with that: WebM, Ogg, or an MP4 box `ftyp`. */
const begins = (data) =>
  startsWith(data, 0x1a, 0x45, 0xdf, 0xa3) || (startsWith(data, 0x4f, 0x67, 0x67, 0x53) && data[5] & 2) || startsWith(data.subarray(4), 0x66, 0x74, 0x79, 0x70);

/** See audio.d.ts. */
export class AudioPlayer {
  #onLevel;
  #onError;
  #told = new Set();
  #context = null;
  #meter;
  #volume;
  #muted = false;
  #stream = null;
  #source = null;
  /** What came last, while it may be the first bytes of a beginning. */
  #torn = new Uint8Array();

  constructor({ onLevel, onError = ({ message }) => console.warn(message) } = {}) {
    this.#onLevel = onLevel;
    this.#onError = onError;
  }

  get muted() {
    return this.#muted;
  }

  set muted(muted) {
    this.#muted = muted;
    if (this.#volume) this.#volume.gain.value = muted ? 0 : 1;
    this.#resume();
  }

  get seconds() {
    return this.#stream?.seconds ?? 0;
  }

  push({ data, format }) {
    let chunk;
    try {
      chunk = typeof data === "string" ? base64(data) : data;
    } catch (error) {
      return this.#fail("The sound that came is no base64. The sender must correct it.", error);
    }
    const type = SHORT[format] ?? format ?? "";
    const whole = Uint8Array.of(...this.#torn, ...chunk.subarray(0, BEGINNING));
    const sound = !begins(chunk) && begins(whole) ? Uint8Array.from([...this.#torn, ...chunk]) : chunk;
    this.#torn = [whole, chunk].find(({ length }) => length < BEGINNING) ?? new Uint8Array();
    // Also in the middle of what is played: after a gap the server begins again.
    if (begins(sound) || !this.#stream) {
      const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;
      if (!Source) return this.#fail("This browser cannot play live sound. Use a newer one.");
      if (!Source.isTypeSupported(type)) return this.#fail(`This browser cannot play "${type}". Send ${FORMATS[0]} or ${FORMATS[2]}.`);
    }
    if (begins(sound)) this.#begin(type);
    this.#stream?.append(sound);
    return undefined;
  }

  /** Each fault is told once, and not with each chunk. */
  #fail(text, cause) {
    if (this.#told.has(text)) return;
    this.#told.add(text);
    this.#onError(new Error(text, { cause }));
  }

  stop() {
    for (const gesture of GESTURES) removeEventListener(gesture, this.#resume);
    this.#stream?.stop();
    this.#meter?.stop();
    this.#context?.close();
    this.#stream = this.#context = null;
  }

  #begin(type) {
    this.#context ??= this.#prepare();
    const { seconds } = this;
    this.#stream?.stop();
    this.#source?.disconnect();
    this.#stream = new Stream(type, seconds, (cause) => this.#fail("The sound cannot be decoded. Start the other side's microphone again.", cause));
    this.#source = this.#context.createMediaElementSource(this.#stream.element);
    this.#source.connect(this.#meter.node);
    this.#resume();
  }

  #prepare() {
    const context = new AudioContext();
    this.#meter = new Meter(context, this.#onLevel);
    this.#volume = new GainNode(context, { gain: this.#muted ? 0 : 1 });
    this.#meter.node.connect(this.#volume).connect(context.destination);
    // A browser allows no sound before the user has touched the page.
    for (const gesture of GESTURES) addEventListener(gesture, this.#resume);
    return context;
  }

  #resume = () => {
    this.#context?.resume();
    this.#stream?.play();
  };
}

/** One audio element that is fed while it plays. */
class Stream {
  failed = false;
  element = new Audio();
  #before;
  #source;
  #buffer = null;
  #waiting = [];
  #onFailed;

  constructor(type, before, onFailed) {
    this.type = type;
    this.#before = before;
    this.#onFailed = onFailed;
    const Source = globalThis.ManagedMediaSource ?? MediaSource;
    this.#source = new Source();
    this.element.disableRemotePlayback = true;
    this.element.src = URL.createObjectURL(this.#source);
    this.element.addEventListener("error", () => this.#fail(this.element.error));
    this.#source.addEventListener("sourceopen", () => this.#open(), { once: true });
  }

  /** Decoded so far, with what came before it. */
  get seconds() {
    const { buffered } = this.element;
    return this.#before + (buffered.length ? buffered.end(buffered.length - 1) : 0);
  }

  play() {
    // The browser refuses until the user touches the page; then it is tried again.
    this.element.play().catch(() => {});
  }

  append(data) {
    if (this.failed) return;
    this.#waiting.push(data);
    this.#feed();
  }

  stop() {
    this.failed = true;
    this.element.pause();
    URL.revokeObjectURL(this.element.src);
  }

  #open() {
    try {
      this.#buffer = this.#source.addSourceBuffer(this.type);
    } catch (error) {
      this.#fail(error);
      return;
    }
    // One chunk after the other, whatever time its recorder says: it may have begun long before we came.
    this.#buffer.mode = "sequence";
    this.#buffer.addEventListener("updateend", () => {
      this.#keepUp();
      this.#feed();
    });
    this.#feed();
  }

  #feed() {
    if (!this.#buffer || this.#buffer.updating || this.failed || !this.#waiting.length) return;
    try {
      this.#buffer.appendBuffer(this.#waiting.shift());
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Live means now: what has piled up is skipped, what was heard is forgotten. */
  #keepUp() {
    const { element } = this;
    if (!element.buffered.length || this.#buffer.updating) return;
    const end = element.buffered.end(element.buffered.length - 1);
    if (end - element.currentTime > LAG) element.currentTime = end - TARGET_LAG;
    if (element.currentTime > 2 * KEPT && element.buffered.start(0) < element.currentTime - 2 * KEPT) {
      this.#buffer.remove(0, element.currentTime - KEPT);
    }
  }

  #fail(cause) {
    if (this.failed) return;
    this.failed = true;
    this.#onFailed(cause);
  }
}

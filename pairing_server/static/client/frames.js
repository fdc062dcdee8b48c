/** Audio in binary frames: twelve bytes, chunk id and format in UTF-8, then the sound. See "Audio" in the protocol. */

const HEAD = 12;

/** A frame for WebSocket.send. `sound`: Blob, ArrayBuffer or a view of one. */
export function encodeAudio(sound, { chunkId = "", format = "", sampleRate = 0 } = {}) {
  const [id, kind] = [chunkId, format].map((text) => new TextEncoder().encode(text));
  const head = new Uint8Array(HEAD + id.length + kind.length);
  head.set([1, id.length, kind.length]);
  new DataView(head.buffer).setUint32(4, sampleRate);
  head.set(id, HEAD);
  head.set(kind, HEAD + id.length);
  return new Blob([head, sound]);
}

/** What a frame of the server holds; null for one of a later version. */
export function decodeAudio(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < HEAD || view.getUint8(0) !== 1) return null;
  const middle = HEAD + view.getUint8(1);
  const end = middle + view.getUint8(2);
  const text = (from, to) => new TextDecoder().decode(buffer.slice(from, to)) || undefined;
  return {
    data: new Uint8Array(buffer, end),
    chunkId: text(HEAD, middle),
    format: text(middle, end),
    sampleRate: view.getUint32(4) || undefined,
    seq: view.getUint32(8),
  };
}

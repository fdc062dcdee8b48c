/** What went wrong. `code` is one of the protocol's, or CLOSED, QUEUE_FULL or UNREACHABLE, which are the client's own. */
export class PairingError extends Error {
  constructor(code, message, about) {
    super(message || code, about);
    Object.assign(this, { name: "PairingError", details: {}, retryable: false, status: 0, retryAfter: 0, ...about, code });
  }
}

/** `known`: that server has answered before, so the URL and the origin are right. Browsers do not say which of them is wrong. */
export function unreachable(url, cause, known) {
  const page = globalThis.location?.origin ?? url;
  const allowed = url.startsWith(page) ? "" : ` PAIRING_ALLOWED_ORIGINS must have ${page}.`;
  const where = known ? "." : ` at ${url}.${allowed}`;
  return new PairingError("UNREACHABLE", `The server cannot be reached${where} Check the network and try again.`, { retryable: true, cause, details: { url } });
}

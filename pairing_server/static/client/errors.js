/** What went wrong. `code` is one of the protocol's, or CLOSED, QUEUE_FULL or UNREACHABLE, which are the client's own. */
export class PairingError extends Error {
  constructor(code, message, about) {
    super(message || code);
    Object.assign(this, { name: "PairingError", details: {}, retryable: false, status: 0, retryAfter: 0, ...about, code });
  }
}

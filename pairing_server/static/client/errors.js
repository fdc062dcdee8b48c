/** What went wrong. `code` is one of the protocol's, or CLOSED, QUEUE_FULL or UNREACHABLE, which are the client's own. */
export class PairingError extends Error {
  constructor(code, message, { details = {}, retryable = false, status = 0, retryAfter = 0 } = {}) {
    super(message || code);
    this.name = "PairingError";
    Object.assign(this, { code, details, retryable, status, retryAfter });
  }
}

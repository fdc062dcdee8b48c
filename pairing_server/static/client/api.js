/** The server's HTTP side: requests with an access token, and the ws tokens that they give. */

import { PairingError } from "./errors.js";

const HTTP_WITHIN = 15_000;
/** A ws token counts as expired so long before it is. */
const MARGIN = 60_000;

/** A function that POSTs: `post(path, body, tries)` gives the answer's body, or throws PairingError. `locate(path)` is a URL. */
export function poster(locate, fetch, accessToken) {
  const ask = async (path, body, token, tries) => {
    try {
      return await fetch(locate(path).href, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(HTTP_WITHIN),
      });
    } catch {
      if (tries > 1) return ask(path, body, token, tries - 1);
      throw new PairingError("UNREACHABLE", "The server cannot be reached. Try again.", { retryable: true });
    }
  };

  const post = async (path, body, tries = 1, refused = false) => {
    const answer = await ask(path, body, await accessToken(refused), tries);
    if (answer.ok) return answer.json();
    const { status, headers } = answer;
    if (status === 401 && !refused) return post(path, body, tries, true);
    const { error = "INTERNAL", message, details = {} } = await answer.json().catch(() => ({}));
    const retryAfter = Number(headers.get("Retry-After"));
    throw new PairingError(error, message, { details, retryable: status === 429 || status >= 500, status, retryAfter });
  };
  return post;
}

/** A function that gives a ws token: that of the last connection while it is good and was not `refused`. */
export function tokens(provide) {
  let token;
  let until = 0;
  return async (refused) => {
    if (refused || Date.now() > until) {
      const given = await provide();
      token = given.token;
      until = Date.now() + 1000 * given.expires_in - MARGIN;
    }
    return token;
  };
}

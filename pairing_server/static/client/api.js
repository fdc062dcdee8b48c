/** The server's HTTP side: requests with an access token, and the ws tokens that they give. */

import { PairingError, unreachable } from "./errors.js";

const HTTP_WITHIN = 15_000;
/** A ws token counts as expired so long before it is. */
const MARGIN = 60_000;

/** A function that POSTs: `post(path, body, tries)` gives the answer's body, or throws PairingError. `locate(path)` is a URL. */
export function poster(locate, fetch, accessToken) {
  let known = false;
  const ask = async (url, body, token, tries) => {
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    // Throws what fetch would throw for a text that cannot be a token: that is no fault of the network.
    new Headers(headers);
    try {
      // Not every runtime has AbortSignal.timeout.
      const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal: AbortSignal.timeout?.(HTTP_WITHIN) });
      known = true;
      return answer;
    } catch (cause) {
      if (tries > 1) return ask(url, body, token, tries - 1);
      throw unreachable(url, cause, known);
    }
  };

  const post = async (path, body, tries = 1, refused = false) => {
    const url = locate(path).href;
    const answer = await ask(url, body, await accessToken(refused), tries);
    const { ok, status, headers } = answer;
    if (status === 401 && !refused) return post(path, body, tries, true);
    const said = await answer.json().catch((cause) => ({ cause }));
    if (ok && !said.cause) return said;
    const { error = "INTERNAL", message = `${url} has answered ${status}. Try again.`, details = {}, cause } = said;
    const retryAfter = Number(headers.get("Retry-After"));
    throw new PairingError(error, message, { details, retryable: ok || status === 429 || status >= 500, status, retryAfter, cause });
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

/** The server's API, whose URLs stand beside the page's, with the reviewer's token, which is in memory only and ends with the page. */

/** What the server refuses. `code` is the protocol's, `fields` says what is wrong with which filter. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.message ?? `The server answered ${status}.`);
    this.status = status;
    this.code = body?.error ?? "";
    this.fields = body?.details?.fields ?? {};
  }

  /** The text for people, with the fields that are wrong. */
  get text() {
    const wrong = Object.entries(this.fields).map(([name, texts]) => `${name}: ${texts.join(" ")}`);
    return wrong.length ? wrong.join("\n") : this.message;
  }
}

export class Api {
  #token = null;
  username = "";
  /** Called when the token is not taken any more. */
  onexpired = () => {};

  get loggedIn() {
    return this.#token !== null;
  }

  async logIn(username, password) {
    const answer = await reach("api/auth/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ username, password }),
    });
    this.#token = (await answer.json()).token;
    this.username = username;
  }

  /** Forget the token, and have the server refuse it from now on. */
  async logOut() {
    const token = this.#token;
    this.#token = null;
    if (token) await reach("api/auth/logout", { method: "POST", headers: { Authorization: `Bearer ${token}` } }).catch(() => null);
  }

  /** The JSON that the endpoint answers with. Throws Refused. */
  async get(path, parameters = {}, signal) {
    return (await this.fetch(path, parameters, signal)).json();
  }

  /** The answer as it comes. Throws Refused. */
  async fetch(path, parameters = {}, signal) {
    const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    const query = new URLSearchParams(given).toString();
    const token = this.#token;
    try {
      return await reach(query ? `${path}?${query}` : path, { headers: { Authorization: `Bearer ${token}` }, signal });
    } catch (error) {
      // Of several answers the first tells; one that was asked for with an older token tells nothing of this one.
      if (error.status === 401 && token !== null && token === this.#token) {
        this.#token = null;
        this.onexpired();
      }
      throw error;
    }
  }
}

async function reach(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "The server cannot be reached. Check the network and try again." });
  }
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
  return answer;
}

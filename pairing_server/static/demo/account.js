/**
 * Who the page is for the server. Where registration is open it makes itself a throw-away account with a random
 * password, kept for this tab only; elsewhere the user logs in, and nothing of that is kept.
 */

const KEY = "pairing-demo.account";
/** An access token is taken for expired this long before it is, in milliseconds. */
const MARGIN = 60_000;

/** What the server has refused: its text, its code, and how many seconds to wait. */
export class Refused extends Error {
  constructor(body, status, retryAfter) {
    super(body?.message ?? `The server answered ${status}.`);
    this.code = body?.error ?? "INTERNAL";
    this.retryAfter = retryAfter;
  }
}

/** POST JSON to this server; `path` stands beside the page. Throws Refused, or Error if the server cannot be reached. */
export async function post(path, body, token) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  } catch {
    throw new Error("The server cannot be reached. Check the network and try again.");
  }
  if (answer.ok) return answer;
  const refusal = await answer.json().catch(() => null);
  throw new Refused(refusal, answer.status, Number(answer.headers.get("Retry-After")) || 0);
}

/** `length` random characters of a URL. */
function random(length) {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => letters[byte % 64]).join("");
}

export class Account {
  #throwAway = false;
  #login = null;
  #token = null;
  #expires = 0;
  #asking = null;

  constructor(storage = sessionStorage) {
    this.storage = storage;
    const kept = storage.getItem(KEY);
    if (kept) this.#take(kept);
  }

  #take(login) {
    const [username, password] = login.split(":");
    this.#login = { username, password };
    this.#throwAway = true;
    this.forget();
  }

  get username() {
    return this.#login?.username ?? null;
  }

  /** `name:password` of a throw-away account, for the phone's QR code; null for a real one. */
  get handOver() {
    return this.#throwAway ? `${this.#login.username}:${this.#login.password}` : null;
  }

  /** Use the throw-away account that another page of this server has handed over. */
  adopt(handOver) {
    this.storage.setItem(KEY, handOver);
    this.#take(handOver);
  }

  /** Make a throw-away account. Throws Refused: registration is closed, or too many were made from here. */
  async register() {
    const made = `demo-${random(10)}:${random(24)}`;
    const [username, password] = made.split(":");
    await post("api/auth/register", { username, password });
    this.adopt(made);
  }

  /** Log in with a real account; its password stays in this page's memory. Throws Refused. */
  async logIn(username, password) {
    const before = this.#login;
    this.#login = { username, password };
    try {
      this.forget();
      await this.token();
      this.#throwAway = false;
    } catch (error) {
      this.#login = before;
      throw error;
    }
  }

  /** Log out. */
  leave() {
    this.storage.removeItem(KEY);
    this.#login = null;
    this.#throwAway = false;
    this.forget();
  }

  /** Whether the account still is one: the server's database may have been made anew. */
  async known() {
    if (!this.#login) return false;
    try {
      await this.token();
      return true;
    } catch (error) {
      if (error.code !== "UNAUTHORIZED" && error.code !== "INVALID_CREDENTIALS") throw error;
      this.leave();
      return false;
    }
  }

  /** The next access token is a new one. */
  forget() {
    this.#token = null;
  }

  /** An access token; one login however many ask at the same time. This is the client's provider: see `accessToken` there. */
  token = async (refused) => {
    if (refused) this.forget();
    if (this.#token && Date.now() < this.#expires) return this.#token;
    this.#asking ??= this.#logIn().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  };

  async #logIn() {
    const answer = await (await post("api/auth/login", this.#login)).json();
    this.#token = answer.token;
    this.#expires = Date.now() + answer.expires_in * 1000 - MARGIN;
    return this.#token;
  }
}

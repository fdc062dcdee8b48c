/** Getting the page an account: a throw-away one where registration is open, else by asking. */

import { Refused } from "./account.js";
import { clock } from "./dom.js";
import { askForLogin } from "./login-form.js";

/** What this server is, as it says itself. Throws Error if it cannot be reached. */
export async function describeSite() {
  const answer = await fetch("demo/site.json").catch(() => null);
  if (!answer?.ok) throw new Error("The server cannot be reached. Reload the page when it runs.");
  return answer.json();
}

/** Resolves once the account is one. `mayRegister`: whether a throw-away one will do here. `place`: where to ask. */
export async function enter(account, place, mayRegister, why) {
  if (await account.known()) return;
  let reason = why;
  if (mayRegister) {
    try {
      await account.register();
      await account.token();
      return;
    } catch (error) {
      // A page that the server takes for another's can do nothing here; the error says what its operator must set.
      if (!(error instanceof Refused) || error.code === "ORIGIN_NOT_ALLOWED") throw error;
      reason = error.code === "RATE_LIMITED" ? tooMany(error) : error.message;
    }
  }
  await askForLogin(place, "Log in", reason, (username, password) => account.logIn(username, password));
}

function tooMany({ retryAfter }) {
  const wait = retryAfter ? ` in ${clock(retryAfter)} minutes` : " later";
  return `Too many throw-away accounts were made from this address. Reload the page${wait}, or log in.`;
}

/** Who is logged in, for the foot of a page. */
export function whoami(account) {
  return account.handOver
    ? `Logged in as ${account.username}, a throw-away account of this tab.`
    : `Logged in as ${account.username}.`;
}

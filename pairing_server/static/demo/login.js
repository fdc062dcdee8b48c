/** Getting the page an account: a throw-away one where registration is open, else by asking. */

import { Refused } from "./account.js";
import { clock, h } from "./dom.js";

/** What this server is, as it says itself. Throws Error if it cannot be reached. */
export async function describeSite() {
  const answer = await fetch("/demo/site.json").catch(() => null);
  if (!answer?.ok) throw new Error("The server cannot be reached. Reload the page once it runs.");
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
      if (!(error instanceof Refused)) throw error;
      reason = error.code === "RATE_LIMITED" ? tooMany(error) : error.message;
    }
  }
  await ask(account, place, reason);
}

function tooMany({ retryAfter }) {
  const wait = retryAfter ? ` in ${clock(retryAfter)} minutes` : " later";
  return `Too many throw-away accounts were made from this address. Reload the page${wait}, or log in.`;
}

/** Resolves once somebody has logged in. */
function ask(account, place, reason) {
  const problem = h("p", { class: "problem", role: "alert" });
  const username = h("input", { id: "username", name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true, maxlength: "256" });
  const password = h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: "1024" });
  const button = h("button", { type: "submit" }, "Log in");
  const form = h(
    "form",
    { class: "login", "aria-labelledby": "login-title" },
    h("h2", { id: "login-title" }, "Log in"),
    h("p", {}, reason),
    h("label", { for: "username" }, "Username"),
    username,
    h("label", { for: "password" }, "Password"),
    password,
    problem,
    button,
  );
  place.replaceChildren(form);
  username.focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      problem.textContent = "";
      try {
        await account.logIn(username.value, password.value);
        form.remove();
        resolve();
      } catch (error) {
        problem.textContent = error.message;
        password.value = "";
        password.focus();
      } finally {
        button.disabled = false;
      }
    });
  });
}

/** Who is logged in, for the foot of a page. */
export function whoami(account) {
  return account.handOver
    ? `Logged in as ${account.username}, a throw-away account of this tab.`
    : `Logged in as ${account.username}.`;
}

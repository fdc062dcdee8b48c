/** Signing in. */

import { h } from "./dom.js";

/** Resolves once somebody has signed in who may read the log. `why`: what to say first. */
export function signIn(api, place, why) {
  const problem = h("p", { class: "problem", role: "alert" });
  const username = h("input", { id: "username", name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true, maxlength: "256", value: api.username });
  const password = h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: "1024" });
  const button = h("button", { type: "submit" }, "Sign in");
  const form = h(
    "form",
    { class: "card login", "aria-labelledby": "login-title" },
    h("h2", { id: "login-title" }, "Sign in"),
    h("p", { class: "muted" }, why),
    h("label", { for: "username" }, "Username"),
    username,
    h("label", { for: "password" }, "Password"),
    password,
    problem,
    button,
  );
  place.replaceChildren(form);
  (api.username ? password : username).focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      problem.textContent = "";
      try {
        await api.signIn(username.value, password.value);
        await api.get("/api/audit/seals");
        form.remove();
        resolve();
      } catch (error) {
        if (error.status === 403) await api.signOut();
        problem.textContent = error.text ?? error.message;
        password.value = "";
        password.focus();
      } finally {
        button.disabled = false;
      }
    });
  });
}

/** The form that asks for a username and a password. */

import { h } from "./dom.js";

/**
 * Shows the form in `place`, alone, until `logIn(username, password)` resolves; resolves then. The form shows
 * what that throws. `title` is also the button's, `why` the text above the fields, `username` a first value.
 */
export function askForLogin(place, title, why, logIn, username = "") {
  const problem = h("p", { class: "problem", role: "alert" });
  const name = h("input", { id: "username", name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true, maxlength: "256", value: username });
  const password = h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: "1024" });
  const button = h("button", { type: "submit" }, title);
  const form = h(
    "form",
    { class: "card login", "aria-labelledby": "login-title" },
    h("h2", { id: "login-title" }, title),
    h("p", { class: "muted" }, why),
    h("label", { for: "username" }, "Username"),
    name,
    h("label", { for: "password" }, "Password"),
    password,
    problem,
    button,
  );
  place.replaceChildren(form);
  (username ? password : name).focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      problem.textContent = "";
      try {
        await logIn(name.value, password.value);
        form.remove();
        resolve();
      } catch (error) {
        problem.textContent = error.text ?? error.message;
        password.value = "";
        password.focus();
      } finally {
        button.disabled = false;
      }
    });
  });
}

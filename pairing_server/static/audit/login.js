/** The login of a reviewer. */

import { askForLogin } from "./login-form.js";

/** Resolves once a user who may read the log has logged in. `why`: the text above the form. */
export function logIn(api, place, why) {
  const attempt = async (username, password) => {
    await api.logIn(username, password);
    try {
      await api.get("api/audit/seals");
    } catch (error) {
      if (error.status === 403) await api.logOut();
      throw error;
    }
  };
  return askForLogin(place, "Log in", why, attempt, api.username);
}

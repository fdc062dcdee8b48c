/** Signing in. */

import { askForLogin } from "./login-form.js";

/** Resolves once a user who may read the log has logged in. `why`: the text above the form. */
export function signIn(api, place, why) {
  const logIn = async (username, password) => {
    await api.signIn(username, password);
    try {
      await api.get("/api/audit/seals");
    } catch (error) {
      if (error.status === 403) await api.signOut();
      throw error;
    }
  };
  return askForLogin(place, "Sign in", why, logIn, api.username);
}

/** Signing in. */

import { askForLogin } from "./login-form.js";

/** Resolves once somebody has signed in who may read the log. `why`: what to say first. */
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

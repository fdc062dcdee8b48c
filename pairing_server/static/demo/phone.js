/** The page `/phone`: one phone, opened by the desktop's QR code, or by a user who types the code. */

import { Account } from "./account.js";
import { Device } from "./device.js";
import { h } from "./dom.js";
import { describeSite, enter, whoami } from "./login.js";
import { RedeemPanel } from "./redeem.js";
import { wirePanel } from "./wire.js";

const LOGIN = /^[\w-]{3,64}:[\w-]{12,64}$/;
const stage = document.querySelector("#stage");
const account = new Account();

/** What the URL's fragment brings, which is gone from the address bar and the history from then on. */
function brought() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (location.hash) history.replaceState(null, "", location.pathname);
  const code = (given.get("code") ?? "").replace(/\D/g, "");
  const login = given.get("login") ?? "";
  return { code: code.length === 6 ? code : null, login: LOGIN.test(login) ? login : null };
}

async function main() {
  const { code, login } = brought();
  if (login) account.adopt(login);
  const site = await describeSite();
  const own = site.registration === "open" && site.redeem_policy === "any_user";
  await enter(account, stage, own, "Log in with the account that made the code, or scan the desktop's QR code.");
  document.querySelector("#who").textContent = whoami(account);

  const wire = wirePanel();
  const phone = new Device({
    kind: "mobile",
    name: "Phone",
    peerName: "desktop",
    account,
    wire,
    pairing: (device) => new RedeemPanel(device),
  });
  const frames = h("details", { class: "inspector" }, h("summary", {}, "Live frames"), wire.element);
  stage.replaceChildren(phone.element, frames);
  if (code) phone.pairing.fill(code);
  else await phone.pairing.start();
}

// The same page, with another code: a phone's browser does not load it anew for that.
addEventListener("hashchange", () => location.reload());

main().catch((error) => {
  stage.replaceChildren(h("p", { class: "problem", role: "alert" }, error.message));
});

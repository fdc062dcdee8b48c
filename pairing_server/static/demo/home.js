/** The page `/`: a desktop, and either a phone beside it or the QR code for a real one. */

import { Account } from "./account.js";
import { CodePanel } from "./code.js";
import { Device } from "./device.js";
import { h } from "./dom.js";
import { describeSite, enter, whoami } from "./login.js";
import { RedeemPanel } from "./redeem.js";
import { wirePanel } from "./wire.js";

const REAL = "#own-phone";
const stage = document.querySelector("#stage");
const account = new Account();

async function main() {
  const site = await describeSite();
  await enter(account, stage, site.registration === "open", "Accounts are made by this server's operator.");
  document.querySelector("#who").textContent = whoami(account);

  const wire = wirePanel();
  const desktop = new Device({
    kind: "desktop",
    name: "Desktop",
    peerName: "phone",
    account,
    wire,
    pairing: (device) => new CodePanel(device, site.public_url),
  });
  const phone = new Device({
    kind: "mobile",
    name: "Phone",
    peerName: "desktop",
    account,
    wire,
    pairing: (device) => new RedeemPanel(device, () => desktop.pairing.code),
  });
  const frames = h(
    "section",
    { class: "inspector", id: "frames", "aria-labelledby": "frames-title" },
    h("header", {}, h("h2", { id: "frames-title" }, "Live frames")),
    wire.element,
  );
  stage.replaceChildren(desktop.element, frames, phone.element);

  for (const input of document.querySelectorAll("input[name=layout]")) {
    input.checked = (input.value === "real") === (location.hash === REAL);
    input.addEventListener("change", () => choose(input.value === "real"));
  }
  const choose = async (real) => {
    history.replaceState(null, "", real ? REAL : location.pathname);
    document.body.classList.toggle("real", real);
    phone.element.hidden = real;
    desktop.pairing.withQr = real;
    // The phone's seat in the desktop's channel is now for the real phone.
    if (real && phone.client.channel) await phone.client.unpair().catch((error) => desktop.showProblem(error.message));
  };
  await Promise.all([desktop.pairing.start(), phone.pairing.start()]);
  await choose(location.hash === REAL);
}

main().catch((error) => {
  stage.replaceChildren(h("p", { class: "problem", role: "alert" }, error.message));
});

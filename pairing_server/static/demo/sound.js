/** The microphone to the other device, and what comes from there: two meters. */

import { AudioPlayer, startMicrophone } from "../client/audio.js";
import { h, size, uniqueId } from "./dom.js";

/** What `getUserMedia` throws, in words. */
const REFUSALS = {
  NotAllowedError: "The browser does not allow the microphone. Allow it, then start it again.",
  NotFoundError: "There is no microphone. Connect one and start it again.",
  NotReadableError: "Another program uses the microphone. Close it and start the microphone again.",
};
const INSECURE = "Browsers give a page the microphone only over https://, or on the machine that the server runs on. Open this page that way.";

/** The element. `showProblem(text)` shows what goes wrong. */
export function soundPanel(client, peerName, showProblem) {
  const out = direction(`To the ${peerName}`);
  const into = direction(`From the ${peerName}`);
  // On http:// from another machine, as on a phone, there is none to ask for.
  const insecure = !navigator.mediaDevices;
  const button = h("button", { type: "button", disabled: insecure }, "Start microphone");
  const sounding = h("input", { type: "checkbox", class: "switch", id: uniqueId("play"), checked: true });
  let microphone = null;
  let bytes = 0;

  const player = new AudioPlayer({ onLevel: into.level });
  client.on("audio", (chunk) => {
    player.push(chunk);
    into.show(`${player.seconds.toFixed(1)} s heard`);
  });
  sounding.addEventListener("change", () => {
    player.muted = !sounding.checked;
  });

  const stop = () => {
    microphone?.stop();
    microphone = null;
    out.level(0);
    button.textContent = "Start microphone";
  };
  const start = async () => {
    microphone = await startMicrophone({
      onLevel: out.level,
      onEnded(error) {
        stop();
        showProblem(error.message);
      },
      onChunk: (data, about) => {
        const sent = client.sendAudio(data, about);
        if (sent) bytes += data.size;
        out.show(`${size(bytes)} sent`);
        return sent;
      },
    });
    button.textContent = "Stop microphone";
  };
  button.addEventListener("click", async () => {
    if (microphone) {
      stop();
      return;
    }
    button.disabled = true;
    try {
      await start();
    } catch (error) {
      showProblem(REFUSALS[error.name] ?? error.message);
    } finally {
      button.disabled = false;
    }
  });
  client.on("state", (state) => {
    if (state === "closed") stop();
  });
  return h(
    "div",
    { class: "sound" },
    button,
    insecure && h("p", { class: "note" }, INSECURE),
    h("label", { class: "inline", for: sounding.id }, sounding, "Sound on"),
    h("div", { class: "levels" }, out.element, into.element),
  );
}

/** One direction: a meter from 0 to 1, and a word. */
function direction(title) {
  const id = uniqueId("level");
  const meter = h("meter", { id, min: 0, max: 1, value: 0 });
  const amount = h("span", { class: "number" });
  return {
    element: h("div", { class: "way" }, h("div", { class: "told" }, h("label", { for: id }, title), amount), meter),
    level: (level) => {
      meter.value = Math.min(1, Math.max(0, level));
    },
    show: (text) => {
      amount.textContent = text;
    },
  };
}

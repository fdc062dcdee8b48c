/** Taking what is asked for away as a file. It is saved as it comes where the browser can do that. */

import { h } from "./dom.js";

const FORMATS = [
  ["jsonl", "JSON lines, with seals"],
  ["csv", "CSV, for spreadsheets"],
  ["cef", "CEF, for SIEMs"],
  ["ocsf", "OCSF, for SIEMs"],
];

export class Export {
  /** `question()` is what to take away; `tell(text)` says how it proceeds. */
  constructor(api, question, tell) {
    this.api = api;
    this.question = question;
    this.tell = tell;
    this.element = h(
      "details",
      { class: "more" },
      h("summary", {}, "Export"),
      h("div", { class: "pop menu" }, FORMATS.map(([format, label]) => h("button", { type: "button", class: "quiet", onclick: () => this.#save(format) }, label))),
    );
  }

  async #save(format) {
    this.element.open = false;
    const name = `audit-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.${format}`;
    try {
      const target = await choose(name);
      if (target === null) return;
      const answer = await this.api.fetch("api/audit/export", { ...this.question(), format });
      const [counted, size] = counting(answer.body, (bytes) => this.tell(`Exporting: ${kibibytes(bytes)} …`));
      if (target) await counted.pipeTo(await target.createWritable());
      else offer(name, await new Response(counted).blob());
      this.tell(`Exported ${name}, ${kibibytes(size())}. The log has its SHA-256.`);
    } catch (error) {
      this.tell(`The export has failed and is not whole: ${error.text ?? error.message}`, true);
    }
  }
}

/** A file to write to; undefined where the browser has no such thing, null if the user cancels. */
async function choose(name) {
  if (!globalThis.showSaveFilePicker || navigator.webdriver) return undefined;
  try {
    return await showSaveFilePicker({ suggestedName: name });
  } catch (error) {
    return error.name === "AbortError" ? null : undefined;
  }
}

function counting(body, tell) {
  let size = 0;
  const counter = new TransformStream({
    transform(chunk, controller) {
      size += chunk.byteLength;
      tell(size);
      controller.enqueue(chunk);
    },
  });
  return [body.pipeThrough(counter), () => size];
}

function offer(name, blob) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function kibibytes(bytes) {
  return bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

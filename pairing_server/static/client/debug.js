/** The log of a client, for its developer. It is loaded only where it is asked for. */

const SECRET = /((?:token|password|secret)\w*":)"(?:\\.|[^"\\])*"/gi;

/** Say on the console what happens to the client. Values by the names of secrets are left out. */
export function log(client, name) {
  const say = (...about) => console.debug(`pairing ${name}:`, ...about);
  say("state", client.state);
  client.on("state", (state, why) => say("state", state, why ?? client.lastError ?? ""));
  client.on("error", (error, about) => say("error", error, about ?? ""));
  client.on("frame", ({ direction, text, bytes }) => say(direction, text?.replace(SECRET, '$1"…"') ?? `${bytes} bytes`));
}

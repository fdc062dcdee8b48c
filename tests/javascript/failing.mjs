// Stories that must not take others with them.
import { assert, ask, tell } from "./story.mjs";

await tell({
  async it_fails_and_leaves_things_changed() {
    globalThis.setTimeout = () => {};
    console.log = () => {};
    setInterval(() => {}, 10);
    assert.equal(1, 2, "not equal");
  },

  async it_throws_where_nobody_waits() {
    setTimeout(() => {
      throw new Error("thrown later");
    });
    await new Promise((resolve) => setInterval(resolve, 60_000));
  },

  async it_waits_for_what_never_comes() {
    await new Promise(() => {});
  },

  async it_asks_for_what_cannot_be_done() {
    await ask("fly");
  },

  async it_passes() {
    await ask("anything");
    await new Promise((resolve) => setTimeout(resolve));
  },
});

// Runs stories, one after the other, each in a worker thread of its own: what a story changes of the global objects, and
// what it leaves running when it fails, ends with the thread. A line on standard input that names a file starts a story,
//   {"file": "core.mjs", "story": …, "given": {…}}
// and every other line is an answer for the one that runs. Lines on standard output are what a story asks for, or its end.
import { createInterface } from "node:readline";
import { Worker } from "node:worker_threads";

const say = (about) => console.log(JSON.stringify(about));
let running;

createInterface({ input: process.stdin }).on("line", (line) => {
  const { file, ...told } = JSON.parse(line);
  if (!file) return running.postMessage(told);
  const worker = new Worker(new URL(file, import.meta.url), { workerData: told });
  running = worker;
  let error;
  let done = false;
  worker.on("message", (message) => {
    if (!message.done) return say(message);
    done = true;
    worker.terminate();
  });
  worker.on("error", (fault) => (error = fault.stack ?? String(fault)));
  worker.on("exit", (code) => say({ ended: told.story, error: done ? null : (error ?? `It ended too early (exit code ${code}).`) }));
});

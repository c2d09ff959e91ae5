// Puts the worker on the page: `send(command, fields)`, `events`, and a way to count steps by their losses.
import { COMMANDS } from "./bundle/protocol.js";

const worker = new Worker("bundle/worker.js", { type: "module" });
const waiting = new Map();
let next = 1;

window.events = [];
window.worker = worker;
worker.onerror = (event) => window.events.push({ event: "uncaught", message: event.message });
worker.onmessage = ({ data }) => {
  if (data.event) {
    window.events.push(data);
    return;
  }
  const { resolve, reject } = waiting.get(data.reply);
  waiting.delete(data.reply);
  if (data.error) reject(new Error(`${data.error.kind}: ${data.error.title} / ${data.error.note}\n${data.error.details}`));
  else resolve(data.result);
};

window.send = (command, fields = {}) =>
  new Promise((resolve, reject) => {
    const empty = Object.fromEntries(COMMANDS[command].map((name) => [name, null]));
    waiting.set(next, { resolve, reject });
    worker.postMessage({ id: next++, command, ...empty, ...fields });
  });

window.boot = () => window.send("boot", { base: new URL("bundle/", location.href).href, manifest: "manifest.json" });
/** Pauses in the moment in which a step is told: what asks from outside may be too late. Resolves to the reply. */
window.pauseAt = async (step) => {
  while (!window.heard("step").some((event) => event.step >= step)) await new Promise((resolve) => setTimeout(resolve, 5));
  return window.send("pause");
};
window.heard = (kind) => window.events.filter((event) => event.event === kind);

/** A zip as base64, for Python to read. */
window.exported = async (run) => {
  const { zip, name } = await window.send("export_run", { run });
  return [name, btoa(Array.from(zip, (byte) => String.fromCharCode(byte)).join(""))];
};

/** Imports a zip from base64. */
window.imported = (text) => window.send("import_run", { zip: Uint8Array.from(atob(text), (c) => c.charCodeAt(0)) });

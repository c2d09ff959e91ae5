// The module worker: boots Python and the GPU side by side, and passes messages between the page and
// demo/session.py. The second visit starts from a snapshot of Python's memory, with the trainer imported, and
// compiles the last run's kernels while Python starts.

import { openGpu } from "./gpu.js";
import * as store from "./store.js";

const KEPT = "tabula-boot"; // the cache of what a later visit starts from
const IMPORTS = "import trainer.train, trainer.report, demo.host";

let saved = 0; // the last step that is safe, for when Python can say nothing any more

/** @param {Object<string, any>} message */
function post(message) {
  if (message.event === "saved" || message.event === "run_started") saved = message.step;
  postMessage(message);
}

function crashed(error) {
  const note = `The run is safe up to step ${saved.toLocaleString("en")}.`;
  const details = String(error?.stack ?? error);
  post({ event: "trouble", kind: "crash", title: "Python stopped", note, details, retry: null });
}

/** @type {Promise<(json: string, zip?: Uint8Array) => void> | null} */
let session = null;

onmessage = async ({ data }) => {
  if (data.command === "boot") session ??= boot(data);
  try {
    const { zip, ...message } = data;
    (await session)(JSON.stringify(message), zip);
  } catch (error) {
    const details = String(error?.stack ?? error);
    post({ reply: data.id, error: { kind: "crash", title: "Python could not be started", note: "", details } });
  }
};

/** @param {{base: string, manifest: string, library?: string}} command */
async function boot({ base, manifest, library = "" }) {
  const root = new URL(base, self.location.href);
  const gpu = openGpu((message) => console.warn(message)); // early; opened anew after it was lost
  gpu.catch(() => {});
  const answer = await fetch(new URL(manifest, root));
  if (!answer.ok) throw new Error(`${answer.url}: HTTP status ${answer.status}`);
  const bundle = await answer.json();
  gpu.then((opened) => warm(opened, bundle.version), () => {});
  const python = await bootPython(root, bundle);
  let first = gpu;
  let current = gpu;
  const worker = {
    books: JSON.stringify(bundle.books),
    library,
    post(json) {
      const message = JSON.parse(json);
      post(message);
      if (message.event === "run_started") current.then((opened) => keepKernels(opened, bundle.version));
    },
    postWithZip(json, zip) {
      const message = JSON.parse(json);
      message.result.zip = zip;
      postMessage(message, [zip.buffer]);
    },
    openGpu() {
      current = first ?? openGpu((message) => console.warn(message));
      first = null;
      return current;
    },
    async bundled(name) {
      const answer = await fetch(new URL(name, root));
      return answer.ok ? answer.arrayBuffer() : undefined; // Python's None; null is not
    },
  };
  return python.pyimport("demo.host").start(worker, store);
}

// ------------------------------------------------------------------ Python

/** Pyodide with our wheel imported: from a snapshot if there is one of this very bundle. */
async function bootPython(root, bundle) {
  const { loadPyodide } = await import(new URL("pyodide/pyodide.mjs", root).href);
  const indexURL = new URL("pyodide/", root).href;
  const options = { indexURL, stdout: console.log, stderr: console.warn };
  const [wheel, snapshot] = await Promise.all([fetchBoot(root, bundle), kept(snapshotOf(bundle.version))]);
  if (snapshot) {
    try {
      const _loadSnapshot = new Uint8Array(await snapshot.arrayBuffer());
      const python = await loadPyodide({ ...options, _loadSnapshot });
      install(python, wheel);
      return python;
    } catch (error) {
      console.info(`Python starts without its snapshot (${error.message})`);
      await caches.delete(KEPT);
    }
  }
  const python = await bootAndKeep(loadPyodide, options, wheel, bundle.version);
  return python ?? bootPlainly(loadPyodide, options, wheel);
}

async function bootPlainly(loadPyodide, options, wheel) {
  const python = await loadPyodide(options);
  install(python, wheel);
  return python;
}

/** Boots, and keeps a snapshot for the next visit; null where this Pyodide or browser cannot. */
async function bootAndKeep(loadPyodide, options, wheel, version) {
  try {
    const python = await loadPyodide({ ...options, _makeSnapshot: true });
    install(python, wheel);
    const snapshot = python.makeMemorySnapshot();
    await caches.delete(KEPT).catch(() => {}); // of older bundles
    keep(snapshotOf(version), snapshot);
    return python;
  } catch (error) {
    console.info(`Python starts plainly (${error.message})`);
    return null;
  }
}

/**
 * Puts our wheel where Python finds it. In Python, because no snapshot can hold the references that Pyodide's
 * own installer keeps; and after a snapshot again, because files are no part of it.
 */
function install(python, wheel) {
  python.FS.writeFile("/tmp/tabula.whl", new Uint8Array(wheel));
  python.runPython(`
import importlib, os, sys, zipfile
site = next(path for path in sys.path if path.endswith("site-packages"))
with zipfile.ZipFile("/tmp/tabula.whl") as wheel:
    wheel.extractall(site)
os.remove("/tmp/tabula.whl")
importlib.invalidate_caches()
${IMPORTS}`);
}

/** The wheel's bytes. All that boots is fetched here first, so that the page can show how far that is. */
async function fetchBoot(root, bundle) {
  const total = bundle.boot.reduce((sum, name) => sum + bundle.files[name].bytes, 0);
  let done = 0;
  const bodies = await Promise.all(
    bundle.boot.map(async (name) => {
      const answer = await fetch(new URL(name, root));
      if (!answer.ok) throw new Error(`${answer.url}: HTTP status ${answer.status}`);
      const body = await answer.arrayBuffer();
      post({ event: "loading", done: (done += body.byteLength), total });
      return body;
    }),
  );
  return bodies[bundle.boot.findIndex((name) => name.endsWith(".whl"))];
}

// ------------------------------------------------------------------ what a later visit starts from

const snapshotOf = (version) => `/${version}/snapshot`;
const kernelsOf = (version) => `/${version}/kernels`;

/** @returns {Promise<Response | undefined>} what `keep` kept under a name */
async function kept(name) {
  try {
    return await (await caches.open(KEPT)).match(name);
  } catch {
    return undefined; // private windows may refuse storage
  }
}

/** @param {string} name @param {BodyInit} body */
async function keep(name, body) {
  try {
    await (await caches.open(KEPT)).put(name, new Response(body));
  } catch (error) {
    console.info(`${name} is not kept (${error.message})`);
  }
}

/** Compiles what the last run needed, as the next one is likely to need the same; two at a time, to leave Python room. */
async function warm(gpu, version) {
  const found = await kept(kernelsOf(version));
  const kernels = await found?.json().catch(() => null); // a write may have been cut short
  if (!Array.isArray(kernels)) return;
  gpu.kept = kernels.filter((kernel) => typeof kernel?.code === "string");
  const left = gpu.kept.values();
  const lane = async () => {
    for (const kernel of left) await gpu.compile(kernel).catch(() => {}); // told of when it is used
  };
  await Promise.all([lane(), lane()]);
}

/** Keeps what a run that begins has compiled: for this visit, and for the next. */
function keepKernels(gpu, version) {
  gpu.kept = gpu.latest;
  return keep(kernelsOf(version), JSON.stringify(gpu.kept));
}

// Python's fatal errors end up here, wherever they happen; the page is told once, by us.
self.addEventListener("error", (event) => {
  event.preventDefault();
  crashed(event.error ?? event.message);
});
self.addEventListener("unhandledrejection", (event) => {
  if (event.reason?.pyodide_fatal_error) crashed(event.reason);
});

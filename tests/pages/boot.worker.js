// Boots Pyodide from the bundle at `base`: plainly, or from a memory snapshot that an earlier boot left in
// Cache Storage. Answers with what Python says of the trainer and whether it had been imported before.
const CACHE = "snapshots";

// What loadPackage does, without its references to JavaScript objects, which no snapshot can hold. The files
// are JavaScript's as well: a restored Python needs them again.
async function unpack(python, base) {
  const { boot } = await (await fetch(`${base}manifest.json`)).json();
  const wheel = await (await fetch(base + boot.find((name) => name.endsWith(".whl")))).arrayBuffer();
  python.FS.writeFile("/tmp/tabula.whl", new Uint8Array(wheel));
  python.runPython(`
import importlib, site, zipfile
with zipfile.ZipFile("/tmp/tabula.whl") as archive:
    archive.extractall(site.getsitepackages()[0])
importlib.invalidate_caches()
`);
}

onmessage = async ({ data: { base, mode } }) => {
  try {
    const { loadPyodide } = await import(`${base}pyodide/pyodide.mjs`);
    const key = `${base}snapshot`;
    const options = { indexURL: `${base}pyodide/` };
    if (mode === "plain") options.packages = ["tabula"];
    if (mode === "make") options._makeSnapshot = true;
    if (mode === "restore") options._loadSnapshot = await (await caches.match(key)).arrayBuffer();
    const python = await loadPyodide(options);
    if (mode !== "plain") await unpack(python, base);
    const imported = python.runPython("import sys; 'trainer.train' in sys.modules");
    const found = python.runPython(`
import json, trainer.train, trainer.checkpoint, trainer.corpus, trainer.evaluate, trainer.generate, demo.protocol
from trainer.config import PRESETS
from trainer.kernels import source
from trainer.model import build
preset = PRESETS["nano"]
model = build(preset.model, train=preset.train, tokens=100_000, evaluation_batch=2, generate=True)
json.dumps([trainer.__version__, len(model.plan.programs), len(trainer.gutenberg.manifest()), len(source("matmul"))])
`);
    if (mode === "make") {
      const snapshot = python.makeMemorySnapshot();
      await (await caches.open(CACHE)).put(key, new Response(snapshot));
    }
    postMessage({ imported, found: JSON.parse(found), isolated: self.crossOriginIsolated });
  } catch (error) {
    postMessage({ error: `${error}\n${error.stack}` });
  }
};

// Boots Python and the GPU and nothing else: the trainer comes as a zip of its sources.

import { GpuError, openGpu } from "./demo/gpu.js";
import { loadPyodide } from "./pyodide/pyodide.mjs";

const problems = [];
const jobs = boot();

async function boot() {
  const [python, gpu, sources] = await Promise.all([
    loadPyodide({ indexURL: new URL("pyodide/", import.meta.url).href }),
    openGpu((message) => problems.push(message)),
    fetch("sources/sources.zip").then((response) => response.arrayBuffer()),
  ]);
  python.unpackArchive(sources, "zip");
  // What a test does to the GPU from outside Python.
  python.registerJsModule("device_worker", { gpu, openGpu, GpuError, problems });
  return python.pyimport("device_jobs");
}

onmessage = async ({ data: { id, name, argument } }) => {
  try {
    const result = await (await jobs).call(name, JSON.stringify(argument ?? {}));
    postMessage({ id, result: JSON.parse(result) });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
};

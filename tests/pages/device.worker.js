// Boots Python and the GPU and nothing else: the trainer comes as a zip of its sources.

import { openGpu } from "./demo/gpu.js";
import { loadPyodide } from "./pyodide/pyodide.mjs";

/** What the browser's compiler says against shader modules; quicker than to make pipelines of them. */
async function refusals(modules) {
  const { device } = await opened;
  const found = [];
  for (const { kernel, code } of JSON.parse(modules)) {
    device.pushErrorScope("validation");
    const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
    await device.popErrorScope();
    for (const { type, lineNum, message } of messages) {
      if (type === "error") found.push(`${kernel}, line ${lineNum}: ${message}`);
    }
  }
  return JSON.stringify(found);
}

const problems = [];
const opened = openGpu((message) => problems.push(message));
const jobs = boot();

async function boot() {
  const [python, gpu, sources] = await Promise.all([
    loadPyodide({ indexURL: new URL("pyodide/", import.meta.url).href }),
    opened,
    fetch("sources/sources.zip").then((response) => response.arrayBuffer()),
  ]);
  python.unpackArchive(sources, "zip");
  // What a test does to the GPU from outside Python.
  python.registerJsModule("device_worker", { gpu, openGpu, problems, refusals });
  return python.pyimport("device_jobs");
}

onmessage = async ({ data: { id, name, argument } }) => {
  try {
    postMessage({ id, result: await (await jobs).call(name, argument) });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
};

// Runs demo/bytecode_inside.py in Pyodide under Node.js, for demo/bytecode.py:
//   node bytecode.mjs <Pyodide's folder> <the wheel's Python files, a zip> <the zip to write>
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodide, sources, output] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodide}/pyodide.mjs`));
const python = await loadPyodide({ indexURL: `${pyodide}/` });
python.FS.writeFile("/stdlib.zip", readFileSync(`${pyodide}/python_stdlib.zip`));
python.FS.writeFile("/sources.zip", readFileSync(sources));
python.runPython(readFileSync(new URL("bytecode_inside.py", import.meta.url), "utf8"));
writeFileSync(output, python.FS.readFile("/compiled.zip"));

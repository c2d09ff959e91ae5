// Puts `call(name, argument)` on the page: runs a function of device_jobs.py in the worker. Argument and result
// are JSON that only Python reads: JavaScript would make 1 of 1.0.

const worker = new Worker("device.worker.js", { type: "module" });
const waiting = new Map();

worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
};

window.call = (name, argument) =>
  new Promise((resolve, reject) => {
    const id = crypto.randomUUID();
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, name, argument });
  });

// The browser's private file system (OPFS) and its locks, for demo/store.py. Paths are names joined by "/".

/** @param {string[]} names @param {boolean} create @returns {Promise<FileSystemDirectoryHandle | null>} */
async function folder(names, create = false) {
  let found = await navigator.storage.getDirectory();
  for (const name of names) {
    try {
      found = await found.getDirectoryHandle(name, { create });
    } catch (error) {
      if (error.name === "NotFoundError") return null;
      throw error;
    }
  }
  return found;
}

/** @param {string} path @returns {[string[], string]} the folders on the way, and the last name */
function parts(path) {
  const names = path.split("/");
  return [names.slice(0, -1), names.at(-1)];
}

/** What is in a folder. */
export async function names(path) {
  const found = [];
  const place = await folder(path.split("/"));
  if (place) for await (const name of place.keys()) found.push(name);
  return found;
}

const REPLACED = 5; // times in a row that another tab may replace a file while it is read

/** @returns {Promise<Uint8Array | undefined>} a file's bytes, or nothing (Python's None; null is not) */
export async function read(path) {
  const [way, name] = parts(path);
  for (let times = 0; ; times++) {
    try {
      const handle = await (await folder(way))?.getFileHandle(name);
      return handle && new Uint8Array(await (await handle.getFile()).arrayBuffer());
    } catch (error) {
      if (error.name === "NotFoundError") return undefined;
      if (error.name !== "NotReadableError" || times === REPLACED) throw error;
    }
  }
}

/** A writer whose content replaces the file when it is closed, and not before. */
export async function create(path) {
  const [way, name] = parts(path);
  const handle = await (await folder(way, true)).getFileHandle(name, { create: true });
  const stream = await handle.createWritable();
  return {
    /** @param {any} bytes a Python buffer; copied, because Python's memory may move while it is written */
    async write(bytes) {
      const view = bytes.getBuffer("u8");
      const copy = view.data.slice();
      view.release();
      await stream.write(copy);
    },
    close: () => stream.close(),
    abort: () => stream.abort(),
  };
}

/** Removes a file, or a folder and what is in it. */
export async function remove(path) {
  const [way, name] = parts(path);
  try {
    await (await folder(way))?.removeEntry(name, { recursive: true });
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
  }
}

/** @returns {Promise<[number, number]>} bytes used and bytes available */
export async function room() {
  const { usage = 0, quota = 0 } = await navigator.storage.estimate();
  return [usage, Math.max(0, quota - usage)];
}

/** @type {Map<string, () => void>} run → gives its lock back */
const held = new Map();

/**
 * Takes the lock of a run, which is kept until `unlock` or until this worker ends.
 * @param {string} run @param {boolean} steal @param {() => void} onLost  called when another tab steals it
 * @returns {Promise<boolean>} whether it is ours now
 */
export function lock(run, steal, onLost) {
  return new Promise((resolve, reject) => {
    const options = steal ? { steal: true } : { ifAvailable: true };
    let ours = false;
    navigator.locks
      .request(`tabula ${run}`, options, (granted) => {
        resolve((ours = granted !== null));
        return ours ? new Promise((release) => held.set(run, () => release(undefined))) : undefined;
      })
      .catch((error) => {
        held.delete(run);
        if (ours) onLost();
        else reject(error);
      });
  });
}

/** Gives the lock of a run back. */
export function unlock(run) {
  held.get(run)?.();
  held.delete(run);
}

/** Whether this browser keeps files for us at all. */
export async function usable() {
  try {
    await create("probe").then((writer) => writer.close());
    await remove("probe");
    return Boolean(navigator.locks);
  } catch {
    return false;
  }
}

/** @returns {Promise<ArrayBuffer | undefined>} what `keep` kept in a cache under an address */
export async function kept(cache, url) {
  const found = await (await caches.open(cache)).match(url);
  return found?.arrayBuffer();
}

/** Keeps a fetched file in the Cache API. @param {any} bytes a Python buffer */
export async function keep(cache, url, bytes) {
  const view = bytes.getBuffer("u8");
  const body = new Response(view.data.slice());
  view.release();
  await (await caches.open(cache)).put(url, body);
}

// Measures f32 matrix products on one CPU thread and, with the trainer's kernels, on the GPU. Python planned at build
// time (demo/site/live/compute.py); gpu.js replays. Posts what it knows as it comes, and `done` with the last of it.
import { openGpu } from "../gpu.js";

const SECONDS = 0.4; // for each of the four rates; all together stay below three seconds
const SUBMIT = 0.05; // of GPU time in one submit at most: the page's own drawing waits for it
const CPU_SIZE = 256;
const CHECKED = 4096; // results that the two kernels must agree on
const TOLERANCE = 1e-4; // of a result's typical size; f32 sums of another order differ by less

const now = () => performance.now() / 1000;

(async () => {
  postMessage({ cpu: cpuRate() });
  try {
    postMessage({ ...(await gpuRates()), done: true });
  } catch (error) {
    postMessage({ problem: error.problem ?? error.message, done: true });
  }
})();

/** GFLOP/s of the plainest loops that visit memory in order, on one thread. */
function cpuRate() {
  const n = CPU_SIZE;
  const [a, b, out] = [0, 1, 2].map(() => Float32Array.from({ length: n * n }, Math.random));
  let best = 0;
  for (const end = now() + SECONDS; now() < end;) {
    const began = now();
    out.fill(0);
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < n; k++) {
        const x = a[i * n + k];
        for (let j = 0; j < n; j++) out[i * n + j] += x * b[k * n + j];
      }
    }
    best = Math.max(best, (2 * n ** 3) / (now() - began) / 1e9);
  }
  return best;
}

async function gpuRates() {
  const gpu = await openGpu((message) => console.warn(message));
  try {
    const answer = await fetch(new URL("compute.json", import.meta.url));
    if (!answer.ok) throw new Error(`${answer.url}: HTTP status ${answer.status}`);
    const plans = (await answer.json())[gpu.info.software ? "software" : "gpu"];
    const { replay, size, places } = await chosen(gpu, plans);
    await agree(replay, places);
    const flops = 2 * size ** 3;
    const naive = flops / (await fastest(replay, "naive")) / 1e9;
    postMessage({ naive });
    const tuned = flops / (await fastest(replay, "tuned")) / 1e9;
    postMessage({ tuned });
    const synced = flops / (await readBack(replay, places.tuned)) / 1e9;
    return { naive, tuned, synced, size, device: gpu.info.name };
  } finally {
    gpu.close();
  }
}

/** The plan of the largest size whose naive product is no longer than a submit may be. */
async function chosen(gpu, plans) {
  const open = async ({ size, places, buffers, programs }) => {
    const replay = await gpu.allocate(JSON.stringify(buffers));
    await replay.compile(JSON.stringify(programs), () => {});
    replay.run("fill naive tuned");
    await replay.finish();
    return { replay, size, places };
  };
  const first = await open(plans[0]);
  const began = now();
  first.replay.run("naive");
  await first.replay.finish();
  const seconds = now() - began;
  const fits = plans.filter(({ size }) => seconds * (size / first.size) ** 3 <= SUBMIT).at(-1);
  if (!fits || fits.size === first.size) return first;
  first.replay.close();
  return open(fits);
}

/** Throws if the two kernels computed different things: a fast wrong one would be no result. */
async function agree(replay, places) {
  const [naive, tuned] = [await values(replay, places.naive), await values(replay, places.tuned)];
  const size = Math.hypot(...naive);
  const error = Math.hypot(...naive.map((x, i) => x - tuned[i]));
  if (!(error <= TOLERANCE * size)) throw new Error("this GPU's results differ between the two kernels");
}

async function values(replay, [buffer, offset], count = CHECKED) {
  const data = new Uint8Array(4 * count);
  // The part of Python's bytearray that gpu.js uses.
  await replay.read(buffer, offset, { length: data.length, getBuffer: () => ({ data, release() {} }) });
  return new Float32Array(data.buffer);
}

/** Seconds of one run of a program: the best of batches that grow until they drown the wait for their end. */
async function fastest(replay, program) {
  const dispatches = replay.programs.get(program).length / 5;
  let best = Infinity;
  let repeats = 1;
  for (const end = now() + SECONDS; ;) {
    const every = Math.max(1, Math.floor(SUBMIT / best)) * dispatches;
    const began = now();
    replay.run(`${program} `.repeat(repeats), Math.min(every, 64 * dispatches));
    await replay.finish();
    const seconds = now() - began;
    best = Math.min(best, seconds / repeats);
    const left = end - now();
    if (left < best) return best;
    repeats = Math.max(1, Math.min(2 * repeats, Math.floor(left / best)));
  }
}

/** Seconds of one tuned product if the host reads a number of each result before it asks for the next. */
async function readBack(replay, place) {
  const began = now();
  let count = 0;
  do {
    replay.run("tuned");
    await values(replay, place, 1);
    count += 1;
  } while (now() < began + SECONDS);
  return (now() - began) / count;
}

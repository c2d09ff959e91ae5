// How long the dispatches of a program take, for demo/device.py: by the GPU's own clock where it has one.

export const CLOCK = "timestamp-query"; // the feature
const CLOCKED = 2048; // dispatches that are timed at once: WebGPU's most queries of a set, two a dispatch

/**
 * Seconds of each dispatch: `repeats` launches of it, divided.
 * @param {import("./gpu.js").Replay} replay @param {string} name  a program @param {number} repeats
 * @returns {Promise<number[]>}
 */
export async function times(replay, name, repeats) {
  const flat = replay.programs.get(name);
  if (!flat) throw new Error(`there is no program ${name}`);
  const dispatches = [];
  for (let i = 0; i < flat.length; i += 5) dispatches.push(flat.subarray(i, i + 5));
  const seconds = [];
  if (replay.gpu.info.clock) {
    for (let start = 0; start < dispatches.length; start += CLOCKED) {
      seconds.push(...(await clockTimes(replay, dispatches.slice(start, start + CLOCKED), repeats)));
    }
    return seconds;
  }
  await replay.finish();
  for (const dispatch of dispatches) {
    const began = performance.now();
    launch(replay, dispatch, repeats);
    await replay.finish();
    seconds.push((performance.now() - began) / 1e3 / repeats);
  }
  return seconds;
}

/** A pass, and a submit, for each dispatch: the clock is read where a pass begins and ends. */
async function clockTimes(replay, dispatches, repeats) {
  const { device } = replay.gpu;
  const count = 2 * dispatches.length;
  const querySet = device.createQuerySet({ type: "timestamp", count });
  dispatches.forEach((dispatch, i) => {
    const timestampWrites = { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
    launch(replay, dispatch, repeats, { timestampWrites });
  });
  const { QUERY_RESOLVE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const resolved = device.createBuffer({ size: 8 * count, usage: QUERY_RESOLVE | COPY_SRC });
  const staging = device.createBuffer({ size: 8 * count, usage: COPY_DST | MAP_READ });
  const encoder = device.createCommandEncoder();
  encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, 8 * count);
  device.queue.submit([encoder.finish()]);
  try {
    await replay.gpu.done(staging.mapAsync(GPUMapMode.READ));
    const nanoseconds = new BigInt64Array(staging.getMappedRange());
    return dispatches.map((_, i) => Number(nanoseconds[2 * i + 1] - nanoseconds[2 * i]) / 1e9 / repeats);
  } finally {
    for (const made of [querySet, resolved, staging]) made.destroy();
  }
}

/**
 * Submits one dispatch, `repeats` times.
 * @param {import("./gpu.js").Replay} replay @param {Int32Array} dispatch @param {number} repeats
 * @param {GPUComputePassDescriptor} options
 */
function launch(replay, [pipeline, group, x, y, z], repeats, options = {}) {
  const { device } = replay.gpu;
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass(options);
  pass.setPipeline(replay.pipelines[pipeline]);
  pass.setBindGroup(0, replay.groups[group]);
  for (let i = 0; i < repeats; i++) pass.dispatchWorkgroups(x, y, z);
  pass.end();
  device.queue.submit([encoder.finish()]);
}

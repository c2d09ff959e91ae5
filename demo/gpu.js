// The browser's GPU for the trainer: buffers, pipelines and bind groups are made once from a flat plan, then
// replayed. demo/device.py is the Python side; what is slow through Pyodide (a call a dispatch) happens here.
//
//     const gpu = await openGpu();                  // or a GpuError with `problem` and `remedy`
//     const replay = await gpu.allocate(json);
//     await replay.compile(json, (done, total) => ...);
//     replay.run("micro update", 0); await replay.read(buffer, offset, bytearray); replay.close();
//
// When the device is lost, `gpu.lost` resolves and every later call throws a GpuError of the kind "lost".

import { describe, HALF } from "./adapter.js";
import { CLOCK, times } from "./clock.js";

const STAGING_KEPT = 1 << 20; // bytes; larger staging buffers are given back after use
const WRITE_CHUNK = 16 << 20; // bytes of one queue.writeBuffer
const SUBGROUPS = "subgroups"; // what some kernels take; Python tries whether they are as those want them
const WANTED = [HALF, SUBGROUPS, CLOCK]; // what a GPU is asked for, where it has it
const POKE_MS = 4; // between two looks at a waiting GPU, where the browser itself looks too seldom

/** What was wrong and what to do about it. Python makes one of the trainer's errors of it. */
export class GpuError extends Error {
  /** @param {"none" | "lost" | "memory" | "failed"} kind @param {string} problem @param {string} remedy */
  constructor(kind, problem, remedy = "") {
    super(remedy ? `${problem}: ${remedy}` : problem);
    this.name = "GpuError";
    this.kind = kind;
    this.problem = problem;
    this.remedy = remedy;
  }
}

/**
 * The best GPU there is: a fast one, any, a software renderer. It is asked for WebGPU's default limits, so that the page
 * plans what a native run plans, and for what it has of f16, which mixed precision takes, of subgroups and of a clock.
 * @param {(message: string) => void} onProblem  told of errors that no call of ours can throw
 * @returns {Promise<Gpu>}
 */
export async function openGpu(onProblem = console.error) {
  if (!navigator.gpu) {
    throw new GpuError("none", "this browser has no WebGPU", "use a current Chrome, Edge, Safari or Firefox");
  }
  let problem = "the browser offers no GPU to this page";
  for (const options of [{ powerPreference: "high-performance" }, {}, { forceFallbackAdapter: true }]) {
    const adapter = await navigator.gpu.requestAdapter(options);
    if (!adapter) continue;
    try {
      const requiredFeatures = WANTED.filter((name) => adapter.features.has(name));
      return new Gpu(adapter, await adapter.requestDevice({ requiredFeatures }), onProblem);
    } catch (error) {
      problem = `the GPU gives no device (${error.message})`;
    }
  }
  throw new GpuError("none", problem, "update the graphics driver, or turn on hardware acceleration");
}

/** An adapter and what its device has, as the trainer's DeviceInfo. @param {GPUAdapter} adapter @param {GPUDevice} device */
function opened(adapter, device) {
  const limits = {};
  for (const limit in device.limits) {
    limits[limit.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)] = device.limits[limit];
  }
  return {
    ...describe(adapter),
    enabled: [HALF, SUBGROUPS].filter((name) => device.features.has(name)),
    limits,
    clock: device.features.has(CLOCK),
  };
}

/** @typedef {{kernel: string, entry: string, code: string}} Kernel  its name, entry point and WGSL module */

/** A device, and what is known of it. */
export class Gpu {
  /** @param {GPUAdapter} adapter @param {GPUDevice} device @param {(message: string) => void} onProblem */
  constructor(adapter, device, onProblem) {
    this.device = device;
    this.info = opened(adapter, device);
    /** @type {Map<string, Promise<GPUComputePipeline>>} what was compiled, by its code */
    this.compiled = new Map();
    /** @type {Kernel[]} what was asked for last */
    this.latest = [];
    /** @type {Kernel[]} what stays compiled though no open plan uses it: the last run's */
    this.kept = [];
    this.poked = navigator.userAgent.includes("Firefox/"); // see `done`
    /** @type {Set<Replay>} the open plans */
    this.replays = new Set();
    /** @type {GpuError | null} why nothing works any more */
    this.failure = null;
    /** @type {Promise<GpuError>} */
    this.lost = device.lost.then(({ reason, message }) => {
      const why = message || reason || "no reason given";
      this.failure = new GpuError("lost", `the GPU was lost (${why})`, "continue from the last save");
      return this.failure;
    });
    device.addEventListener("uncapturederror", ({ error }) => {
      const kind = error instanceof GPUOutOfMemoryError ? "memory" : "failed";
      this.failure ??= new GpuError(kind, `the GPU reports an error (${error.message})`, "reload the page");
      onProblem(error.message);
    });
  }

  /** `info` as JSON, which Python reads without proxies. */
  describe() {
    return JSON.stringify(this.info);
  }

  /** Throws if the device is lost or has gone wrong: what it computes from then on is no result. */
  check() {
    if (this.failure) throw this.failure;
  }

  /** `promise`, or the reason why the device is of no use. */
  async settled(promise) {
    try {
      const value = await promise;
      this.check();
      return value;
    } catch (error) {
      // What fails with the device may be told before the loss itself.
      await Promise.race([this.lost, new Promise((resolve) => setTimeout(resolve, 100))]);
      this.check();
      throw error;
    }
  }

  /**
   * `settled`, for what comes once the GPU has done its work. Firefox looks whether it has ten times a second, and
   * when something is submitted (https://bugzilla.mozilla.org/show_bug.cgi?id=1870699): so something is, an empty list.
   */
  async done(promise) {
    const poke = this.poked && setInterval(() => this.device.queue.submit([]), POKE_MS);
    try {
      return await this.settled(promise);
    } finally {
      clearInterval(poke);
    }
  }

  /** Makes the (zeroed) buffers of a plan. @param {string} json  their sizes in bytes @returns {Promise<Replay>} */
  async allocate(json) {
    this.check();
    /** @type {number[]} */
    const sizes = JSON.parse(json);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    this.device.pushErrorScope("validation");
    this.device.pushErrorScope("out-of-memory");
    const buffers = sizes.map((size) => this.device.createBuffer({ size, usage }));
    const errors = await this.settled(
      Promise.all([this.device.popErrorScope(), this.device.popErrorScope()]),
    );
    const error = errors.find(Boolean);
    if (error) {
      for (const buffer of buffers) buffer.destroy();
      const mib = Math.ceil(sizes.reduce((sum, size) => sum + size, 0) / 2 ** 20).toLocaleString("en");
      throw new GpuError(
        "memory",
        `${this.info.name} cannot hold ${mib} MiB (${error.message})`,
        "choose a smaller preset, batch or context",
      );
    }
    return new Replay(this, buffers);
  }

  /**
   * @param {Kernel[]} modules
   * @param {(done: number, total: number) => void} progress
   * @returns {Promise<GPUComputePipeline[]>}
   */
  async pipelines(modules, progress) {
    this.latest = modules;
    let done = 0;
    // All at once: the browser compiles on several threads. And all to their end, even if one fails, as
    // `progress` is Python's and must not be called any more once this has returned.
    const results = await Promise.allSettled(
      modules.map(async (module) => {
        const pipeline = await this.compile(module);
        progress(++done, modules.length);
        return pipeline;
      }),
    );
    const failed = results.find((result) => result.status === "rejected");
    if (failed) throw failed.reason;
    return results.map((result) => result.value);
  }

  /** The pipeline of a kernel, made once. @param {Kernel} kernel @returns {Promise<GPUComputePipeline>} */
  compile(kernel) {
    const key = JSON.stringify(kernel);
    let made = this.compiled.get(key);
    if (!made) {
      made = this.pipeline(kernel);
      this.compiled.set(key, made);
      made.catch(() => this.compiled.delete(key));
    }
    return made;
  }

  /** Lets go of what neither an open plan nor the last run uses: a reader may try many settings. */
  forget() {
    const used = [...this.replays].flatMap((replay) => replay.kernels);
    const wanted = new Set([...this.kept, ...used].map((kernel) => JSON.stringify(kernel)));
    for (const key of this.compiled.keys()) if (!wanted.has(key)) this.compiled.delete(key);
  }

  /** @param {Kernel} kernel @returns {Promise<GPUComputePipeline>} */
  async pipeline({ kernel, entry, code }) {
    // The compiler's own words are asked for below; without a scope they would count as errors of the device.
    this.device.pushErrorScope("validation");
    const module = this.device.createShaderModule({ label: kernel, code });
    const refused = this.device.popErrorScope();
    const compute = { module, entryPoint: entry };
    const made = this.device.createComputePipelineAsync({ label: kernel, layout: "auto", compute });
    try {
      return (await this.settled(Promise.all([made, refused])))[0];
    } catch (error) {
      if (error instanceof GpuError) throw error;
      const { messages } = await module.getCompilationInfo();
      const first = messages.find((message) => message.type === "error");
      const what = first ? `line ${first.lineNum}: ${first.message.split("\n")[0]}` : error.message;
      throw new GpuError("failed", `the GPU refuses the kernel ${kernel} (${what})`, "update the browser");
    }
  }

  /** Gives the device back. */
  close() {
    this.device.destroy();
  }
}

/** A plan on the GPU: its buffers, and the programs that were compiled. */
export class Replay {
  /** @param {Gpu} gpu @param {GPUBuffer[]} buffers */
  constructor(gpu, buffers) {
    this.gpu = gpu;
    gpu.replays.add(this);
    this.buffers = buffers;
    /** @type {Kernel[]} what its pipelines are made of */
    this.kernels = [];
    /** @type {GPUComputePipeline[]} */
    this.pipelines = [];
    /** @type {GPUBindGroup[]} */
    this.groups = [];
    /** @type {Map<string, Int32Array>} */
    this.programs = new Map();
    /** @type {Map<number, GPUBuffer[]>} free staging buffers by size */
    this.staging = new Map();
  }

  /**
   * Adds programs. Pipelines and groups are numbered on from those that are there.
   * @param {string} json  {pipelines: [{kernel, entry, code}],
   *     groups: [{pipeline, entries: [[binding, buffer, offset, size]]}],
   *     programs: {name: [pipeline, group, x, y, z, ...]}}
   * @param {(done: number, total: number) => void} progress
   */
  async compile(json, progress) {
    this.gpu.check();
    const plan = JSON.parse(json);
    this.kernels.push(...plan.pipelines);
    const open = () => this.gpu.replays.has(this); // or the run was stopped meanwhile
    const made = await this.gpu.pipelines(plan.pipelines, (done, total) => open() && progress(done, total));
    if (!open()) return;
    this.pipelines.push(...made);
    for (const { pipeline, entries } of plan.groups) {
      this.groups.push(
        this.gpu.device.createBindGroup({
          layout: this.pipelines[pipeline].getBindGroupLayout(0),
          entries: entries.map(([binding, buffer, offset, size]) => ({
            binding,
            resource: { buffer: this.buffers[buffer], offset, size },
          })),
        }),
      );
    }
    for (const name in plan.programs) this.programs.set(name, Int32Array.from(plan.programs[name]));
  }

  /**
   * Submits programs and returns at once.
   * @param {string} names  separated by spaces; there may be none
   * @param {number} submitEvery  dispatches in one submit; 0: all
   */
  run(names, submitEvery = 0) {
    this.gpu.check();
    const { device } = this.gpu;
    const every = submitEvery || Infinity;
    let encoder = device.createCommandEncoder();
    let pass = encoder.beginComputePass();
    let current = -1;
    let count = 0;
    for (const name of names.split(" ").filter(Boolean)) {
      const flat = this.programs.get(name);
      if (!flat) throw new Error(`there is no program ${name}`);
      for (let i = 0; i < flat.length; i += 5) {
        if (count === every) {
          pass.end();
          device.queue.submit([encoder.finish()]);
          encoder = device.createCommandEncoder();
          pass = encoder.beginComputePass();
          current = -1;
          count = 0;
        }
        if (flat[i] !== current) {
          current = flat[i];
          pass.setPipeline(this.pipelines[current]);
        }
        pass.setBindGroup(0, this.groups[flat[i + 1]]);
        pass.dispatchWorkgroups(flat[i + 2], flat[i + 3], flat[i + 4]);
        count += 1;
      }
    }
    pass.end();
    if (count) device.queue.submit([encoder.finish()]);
  }

  /**
   * Seconds that each dispatch of a program takes, as JSON: `repeats` launches of it, divided.
   * @param {string} name @param {number} repeats
   */
  async times(name, repeats) {
    this.gpu.check();
    return JSON.stringify(await times(this, name, repeats));
  }

  /**
   * @param {number} buffer @param {number} offset  in bytes
   * @param {import("pyodide/ffi").PyBuffer} data  any of Python's bytes-like objects
   */
  write(buffer, offset, data) {
    this.gpu.check();
    const view = data.getBuffer("u8");
    try {
      const { queue } = this.gpu.device;
      for (let start = 0; start < view.data.length; start += WRITE_CHUNK) {
        const chunk = view.data.subarray(start, start + WRITE_CHUNK);
        queue.writeBuffer(this.buffers[buffer], offset + start, chunk);
      }
    } finally {
      view.release();
    }
  }

  /**
   * Fills `data`, once the work submitted so far is done. The copy is queued before this returns.
   * @param {number} buffer @param {number} offset  in bytes
   * @param {import("pyodide/ffi").PyBuffer} data  a bytearray
   */
  async read(buffer, offset, data) {
    this.gpu.check();
    const { device } = this.gpu;
    const size = data.length;
    const staging = this.takeStaging(size);
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(this.buffers[buffer], offset, staging, 0, size);
    device.queue.submit([encoder.finish()]);
    await this.gpu.done(staging.mapAsync(GPUMapMode.READ, 0, size));
    const view = data.getBuffer("u8"); // not before: Python's memory moves when it grows
    view.data.set(new Uint8Array(staging.getMappedRange(0, size)));
    view.release();
    staging.unmap();
    this.giveStaging(staging);
  }

  /** Waits until all submitted work is done. */
  async finish() {
    this.gpu.check();
    await this.gpu.done(this.gpu.device.queue.onSubmittedWorkDone());
  }

  /** Gives the memory back. */
  close() {
    for (const buffer of [...this.buffers, ...[...this.staging.values()].flat()]) buffer.destroy();
    this.buffers = this.pipelines = this.groups = [];
    this.programs.clear();
    this.staging.clear();
    this.gpu.replays.delete(this);
    this.gpu.forget();
  }

  /** @param {number} bytes @returns {GPUBuffer} */
  takeStaging(bytes) {
    const size = Math.max(256, 2 ** Math.ceil(Math.log2(bytes)));
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const free = this.staging.get(size)?.pop();
    return free ?? this.gpu.device.createBuffer({ size: size > STAGING_KEPT ? bytes : size, usage });
  }

  /** @param {GPUBuffer} staging */
  giveStaging(staging) {
    if (staging.size > STAGING_KEPT || !this.buffers.length) return staging.destroy();
    if (!this.staging.has(staging.size)) this.staging.set(staging.size, []);
    this.staging.get(staging.size).push(staging);
  }
}

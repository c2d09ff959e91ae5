// What a GPUAdapter tells of itself: the page asks one before Python has come, and gpu.js opens one in the worker.

export const HALF = "shader-f16"; // the feature that mixed precision takes
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|software|basic render|\bwarp\b/i;

/**
 * An adapter as the trainer's DeviceInfo has it, but for what depends on the device. Older browsers have no `info`, or
 * `isFallbackAdapter` beside it.
 * @param {GPUAdapter} adapter
 */
export function describe({ info = {}, features, isFallbackAdapter = false }) {
  const parts = [info.vendor, info.architecture].filter(Boolean);
  const told = info.description || info.device || parts.join(" "); // Firefox tells nothing
  const software = (info.isFallbackAdapter ?? isFallbackAdapter) || SOFTWARE.test([told, ...parts].join(" "));
  return {
    name: told || (software ? "software renderer" : "unnamed GPU"),
    backend: "WebGPU",
    kind: software ? "CPU" : "GPU",
    software,
    driver: parts.join(" "),
    features: [...features].sort(),
  };
}

// The presets and the rules of the settings, as trainer/config.py has them (a test compares), so that the form
// answers before Python is there. What a run really costs comes from the worker's `estimate`.

import { HALF } from "../adapter.js";
import { whole } from "./format.js";

const model = (layers, width, heads, context, vocab) => ({ layers, width, heads, context, vocab });
const train = (steps, batch, accumulate, learning_rate, warmup) =>
  ({ steps, batch, accumulate, learning_rate, warmup, precision: "f32", seed: 1337 });

/** @type {Object<string, {model: Object<string, number>, train: Object<string, number | string>, name: string}>} */
export const PRESETS = {
  nano: { name: "Nano", model: model(2, 48, 3, 64, 1024), train: train(300, 8, 1, 3e-3, 20) },
  micro: { name: "Micro", model: model(4, 128, 4, 128, 2048), train: train(2000, 16, 1, 2e-3, 100) },
  mini: { name: "Mini", model: model(5, 256, 4, 256, 4096), train: train(5000, 32, 1, 1e-3, 200) },
  small: { name: "Small", model: model(6, 384, 6, 256, 8192), train: train(20000, 64, 1, 1e-3, 500) },
  gpt2: { name: "GPT-2", model: model(12, 768, 12, 1024, 50257), train: train(19000, 8, 64, 6e-4, 700) },
};

/** To go on from trained weights: fewer and smaller steps, since they know most already. */
export const FURTHER = { steps: 300, batch: 16, accumulate: 1, learning_rate: 3e-4, warmup: 20 };

export const MODEL_FIELDS = ["layers", "width", "heads", "context", "vocab"];
export const PRECISIONS = ["f32", "mixed"];
/** Whether a device can train in mixed precision. */
export const half = (device) => Boolean(device?.features?.includes(HALF));
export const SAMPLE_PROMPT = "Once upon a time";
export const NAMES = {
  layers: "Layers", width: "Width", heads: "Heads", context: "Context", vocab: "Vocabulary",
  batch: "Batch", accumulate: "Accumulation", steps: "Steps", learning_rate: "Learning rate", seed: "Seed",
};
const MOST_STEPS = 8_388_608;
const MOST_MEMORY = 100e9; // bytes; what fits is said by the device, but so much no browser gives

/** Share of the measured matmul peak that training is expected to reach, before it has been seen. */
const EXPECTED_SHARE = 0.35;

/** Trainable parameters; the head shares the token embedding's. */
export function parameters({ layers, width, context, vocab }) {
  return (vocab + context) * width + layers * (12 * width * width + 13 * width) + 2 * width;
}

/** Floating-point operations of a run: trainer/budget.py's count. */
export function flops(m, t) {
  const forward = 2 * (12 * m.layers * m.width * m.width + m.vocab * m.width) + 2 * m.layers * m.width * m.context;
  return 3 * forward * tokens(m, t);
}

/**
 * Bytes that training takes on the device, within a tenth: weights, gradients and two moments; what a micro-batch
 * keeps for its backward pass; and the logits, of which no more than a binding's 128 MiB exist at a time.
 */
export function memory(m, t) {
  const rows = t.batch * m.context;
  return 16 * parameters(m) + 4 * rows * m.width * (16 * m.layers + 5) + Math.min(4 * rows * m.vocab, 2 ** 27);
}

/** Tokens that a run reads. */
export const tokens = (m, t) => t.batch * (t.accumulate ?? 1) * m.context * t.steps;

/** Seconds that a run takes at a measured peak (GFLOP/s), or NaN. */
export const expectedSeconds = (m, t, peak) => (peak ? flops(m, t) / (peak * 1e9 * EXPECTED_SHARE) : NaN);

/** The largest preset that ends within five minutes here. */
export function suited(peak, software) {
  if (software) return "nano";
  if (!peak) return "micro";
  const fits = Object.keys(PRESETS).filter((name) => {
    const { model: m, train: t } = PRESETS[name];
    return name !== "gpt2" && expectedSeconds(m, t, peak) <= 300;
  });
  return fits.at(-1) ?? "nano";
}

/**
 * The first rule that settings break, or null.
 * @returns {{field: string, rule: string} | null}
 */
export function broken(m, t) {
  const all = { ...m, ...t };
  for (const field of ["layers", "width", "heads", "context", "vocab", "batch", "accumulate", "steps"]) {
    if (!(Number.isInteger(all[field]) && all[field] > 0)) {
      return { field, rule: `${NAMES[field]} must be a whole number above 0` };
    }
  }
  if (!(Number.isInteger(t.warmup) && t.warmup >= 0)) return { field: "warmup", rule: "Warm-up must be a whole number from 0 up" };
  if (t.steps > MOST_STEPS) return { field: "steps", rule: `Steps must be at most ${whole(MOST_STEPS)}` };
  if (m.vocab < 257 || m.vocab > 65535) return { field: "vocab", rule: "Vocabulary must be from 257 to 65,535" };
  if (m.width % m.heads) return { field: "width", rule: `Width must be a multiple of heads, ${m.heads}` };
  if (m.width / m.heads > 128) return { field: "heads", rule: "Width divided by heads must be at most 128" };
  if (!(t.learning_rate > 0 && t.learning_rate < Infinity)) {
    return { field: "learning_rate", rule: "Learning rate must be a number above 0" };
  }
  if (!(Number.isInteger(t.seed) && t.seed >= 0 && t.seed < 2 ** 32)) {
    return { field: "seed", rule: "Seed must be a whole number from 0 to 4,294,967,295" };
  }
  if (memory(m, t) > MOST_MEMORY) {
    return { field: "", rule: `These settings take ${whole(memory(m, t) / 1e9)} GB: choose fewer layers, less width or a smaller batch` };
  }
  return null;
}

/** Settings that fit together: a run shorter than the preset's warm-up warms up for a tenth of it. */
export function complete(t) {
  const every = Math.max(1, Math.round(t.steps / 12));
  const warmup = t.warmup < t.steps ? t.warmup : Math.floor(t.steps / 10);
  return { ...t, warmup, eval_every: every, sample_every: every, sample_prompt: SAMPLE_PROMPT, sample_tokens: 32 };
}

/** Whether `b` has all values of `a`. */
export const same = (a, b) => Object.entries(a).every(([name, value]) => b[name] === value);

// What all trainers of this page train: GPT-2's blocks (pre-LayerNorm, learned positions, GELU, tied head) on one
// window of random tokens, as often as the batch is large, with AdamW and the schedule that trainer/config.py has by default.

/** @typedef {{layers: number, width: number, heads: number, context: number, vocab: number, batch: number}} Shape */

export const ADAMW = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, decay: 0.1, clip: 1 };

/** The learning rate of step 1, 2, ...: as far as this page trains, it rises. */
export const rate = (step) => 3e-3 * Math.min(1, step / 20);

/** Names, shapes and standard deviations of the parameters; `one` marks the gains of LayerNorms. @param {Shape} shape */
export function parameters({ layers, width: C, context, vocab }) {
  const found = [
    { name: "wte", shape: [vocab, C], std: 0.02 },
    { name: "wpe", shape: [context, C], std: 0.02 },
    ...norm("ln_f", C),
  ];
  const residual = 0.02 / Math.sqrt(2 * layers);
  for (let i = 0; i < layers; i++) {
    found.push(
      ...norm(`${i}.ln_1`, C),
      ...linear(`${i}.qkv`, C, 3 * C, 0.02),
      ...linear(`${i}.proj`, C, C, residual),
      ...norm(`${i}.ln_2`, C),
      ...linear(`${i}.fc`, C, 4 * C, 0.02),
      ...linear(`${i}.fc_proj`, 4 * C, C, residual),
    );
  }
  return found;
}

const norm = (name, C) => [
  { name: `${name}.weight`, shape: [C], one: true },
  { name: `${name}.bias`, shape: [C] },
];
const linear = (name, from, to, std) => [
  { name: `${name}.weight`, shape: [from, to], std },
  { name: `${name}.bias`, shape: [to] },
];

/** Initial values of a parameter: N(0, std²), 1 or 0. @returns {Float32Array} */
export function initial({ shape, std = 0, one = false }) {
  const values = new Float32Array(shape.reduce((product, n) => product * n, 1)).fill(one ? 1 : 0);
  if (std) values.forEach((_, i) => (values[i] = std * normal()));
  return values;
}

/** One of N(0, 1), by Box and Muller. */
function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

/** The batch: inputs and targets (B, T), rows that are alike. @param {Shape} shape @returns {{inputs: Int32Array, targets: Int32Array}} */
export function batch({ batch: B, context: T, vocab }) {
  const ids = Int32Array.from({ length: T + 1 }, () => Math.floor(vocab * Math.random()));
  const rows = (first) => Int32Array.from({ length: B * T }, (_, i) => ids[first + (i % T)]);
  return { inputs: rows(0), targets: rows(1) };
}

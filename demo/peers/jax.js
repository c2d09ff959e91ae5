// jax-js: the whole step is one jitted function, on its WebGPU backend.
import { defaultDevice, init, jit, nn, numpy as np, valueAndGrad } from "./npm/@jax-js/jax/dist/index.js";
import { ADAMW, batch, initial, parameters, rate } from "./model.js";

/** @param {import("./model.js").Shape} shape */
export async function open(shape) {
  await init("webgpu");
  defaultDevice("webgpu");
  const { batch: B, context: T } = shape;
  const table = parameters(shape);
  const matrices = new Set(table.filter(({ std }) => std).map(({ name }) => name));
  const whole = (fill) =>
    Object.fromEntries(table.map((p) => [p.name, np.array(fill(p)).reshape(p.shape)]));
  const zeros = ({ shape }) => new Float32Array(shape.reduce((product, n) => product * n, 1));
  let weights = whole(initial);
  let means = whole(zeros);
  let squares = whole(zeros);
  const { inputs, targets } = batch(shape);
  const x = np.array(inputs, { dtype: np.int32 }).reshape([B, T]);
  const y = np.array(targets, { dtype: np.int32 }).reshape([B, T]);

  const step = jit((weights, means, squares, x, y, schedule) => {
    const [loss, gradients] = valueAndGrad((w) => lossOf(shape, w, x, y))(copies(weights));
    const norm = np.sqrt(
      Object.values(gradients).map((g) => np.sum(np.square(g.ref))).reduce((sum, part) => sum.add(part)),
    );
    const scale = np.minimum(np.array(ADAMW.clip).div(norm.add(1e-6)), 1);
    const next = { weights: {}, means: {}, squares: {} };
    for (const name in gradients) {
      const g = gradients[name].mul(scale.ref);
      const m = means[name].mul(ADAMW.beta1).add(g.ref.mul(1 - ADAMW.beta1));
      const v = squares[name].mul(ADAMW.beta2).add(np.square(g).mul(1 - ADAMW.beta2));
      const by = np.sqrt(v.ref.mul(schedule.ref.slice(2))).add(ADAMW.epsilon);
      const update = m.ref.mul(schedule.ref.slice(1)).div(by);
      const decay = matrices.has(name) ? weights[name].ref.mul(ADAMW.decay) : 0;
      next.weights[name] = weights[name].sub(update.add(decay).mul(schedule.ref.slice(0)));
      next.means[name] = m;
      next.squares[name] = v;
    }
    scale.dispose();
    schedule.dispose();
    return [loss, next.weights, next.means, next.squares];
  });

  let steps = 0;
  return {
    /** @param {number} count @returns {Promise<{ms: number, first: number, last: number}>} */
    async run(count) {
      const losses = [];
      const began = performance.now();
      for (let i = 0; i < count; i++) {
        steps += 1;
        const corrections = [ADAMW.beta1, ADAMW.beta2].map((beta) => 1 / (1 - beta ** steps));
        const schedule = np.array([rate(steps), ...corrections]);
        let loss;
        [loss, weights, means, squares] = step(weights, means, squares, x.ref, y.ref, schedule);
        losses.push(loss);
      }
      await losses.at(-1).ref.blockUntilReady();
      const ms = (performance.now() - began) / count;
      const values = await Promise.all(losses.map(async (loss) => (await loss.data())[0]));
      return { ms, first: values[0], last: values.at(-1) };
    },
  };
}

const copies = (tree) => Object.fromEntries(Object.entries(tree).map(([name, array]) => [name, array.ref]));

/** Mean cross-entropy in nats. Takes what it is given: jax-js counts references. */
function lossOf({ layers, width: C, heads: NH, context: T, vocab: V, batch: B }, w, x, y) {
  const HS = C / NH;
  const dense = (name, x) => np.matmul(x, w[`${name}.weight`]).add(w[`${name}.bias`]);
  const norm = (name, x) => nn.standardize(x).mul(w[`${name}.weight`]).add(w[`${name}.bias`]);
  let h = np.matmul(nn.oneHot(x, V), w.wte.ref).add(w.wpe);
  for (let i = 0; i < layers; i++) {
    const parts = np.split(dense(`${i}.qkv`, norm(`${i}.ln_1`, h.ref)), 3, -1);
    const [q, k, v] = parts.map((part) => part.reshape([B, T, NH, HS]));
    const attended = nn.dotProductAttention(q, k, v, { isCausal: true }).reshape([B, T, C]);
    h = h.add(dense(`${i}.proj`, attended));
    h = h.ref.add(dense(`${i}.fc_proj`, nn.gelu(dense(`${i}.fc`, norm(`${i}.ln_2`, h)))));
  }
  const logits = np.matmul(norm("ln_f", h), np.transpose(w.wte));
  const chosen = nn.logSoftmax(logits).mul(nn.oneHot(y, V));
  return np.sum(chosen).mul(-1 / (B * T));
}

// TensorFlow.js on its WebGPU backend: gradients from variableGrads, AdamW from its operations.
import { ADAMW, batch, initial, parameters, rate } from "./model.js";

const { tf } = self;

/** @param {import("./model.js").Shape} shape */
export async function open(shape) {
  await tf.setBackend("webgpu");
  await tf.ready();
  const { batch: B, context: T } = shape;
  const table = parameters(shape).map((parameter) => {
    const weight = tf.variable(tf.tensor(initial(parameter), parameter.shape));
    const [mean, square] = [0, 1].map(() => tf.variable(tf.zeros(parameter.shape)));
    return { ...parameter, weight, mean, square };
  });
  const w = Object.fromEntries(table.map(({ name, weight }) => [name, weight]));
  const weights = table.map(({ weight }) => weight);
  const { inputs, targets } = batch(shape);
  const x = tf.tensor(inputs, [B, T], "int32");
  const y = tf.oneHot(tf.tensor(targets, [B * T], "int32"), shape.vocab);
  // What scores are given that look ahead
  const ahead = tf.tidy(() => tf.linalg.bandPart(tf.ones([T, T]), -1, 0).sub(1).mul(1e9));

  let steps = 0;
  const step = () =>
    tf.tidy(() => {
      steps += 1;
      const { value, grads } = tf.variableGrads(() => lossOf(shape, w, x, y, ahead), weights);
      const parts = weights.map(({ name }) => grads[name].square().sum());
      const norm = parts.reduce((sum, part) => sum.add(part)).sqrt(); // addN binds more than WebGPU's eight
      const scale = tf.minimum(tf.scalar(ADAMW.clip).div(norm.add(1e-6)), 1);
      for (const { weight, mean, square, std } of table) {
        const g = grads[weight.name].mul(scale);
        mean.assign(mean.mul(ADAMW.beta1).add(g.mul(1 - ADAMW.beta1)));
        square.assign(square.mul(ADAMW.beta2).add(g.square().mul(1 - ADAMW.beta2)));
        const by = square.mul(1 / (1 - ADAMW.beta2 ** steps)).sqrt().add(ADAMW.epsilon);
        const update = mean.mul(rate(steps) / (1 - ADAMW.beta1 ** steps)).div(by);
        weight.assign(weight.mul(1 - (std ? rate(steps) * ADAMW.decay : 0)).sub(update));
      }
      return value;
    });

  return {
    /** @param {number} count @returns {Promise<{ms: number, first: number, last: number}>} */
    async run(count) {
      const losses = [];
      const began = performance.now();
      for (let i = 0; i < count; i++) losses.push(step());
      await losses.at(-1).data();
      const ms = (performance.now() - began) / count;
      const values = await Promise.all(losses.map(async (loss) => (await loss.data())[0]));
      tf.dispose(losses);
      return { ms, first: values[0], last: values.at(-1) };
    },
  };
}

/** Mean cross-entropy in nats. */
function lossOf({ layers, width: C, heads: NH, context: T, batch: B }, w, x, y, ahead) {
  const HS = C / NH;
  const dense = (name, x) => x.matMul(w[`${name}.weight`]).add(w[`${name}.bias`]);
  const norm = (name, x) => {
    const { mean, variance } = tf.moments(x, -1, true);
    return x.sub(mean).mul(variance.add(1e-5).rsqrt()).mul(w[`${name}.weight`]).add(w[`${name}.bias`]);
  };
  let h = tf.gather(w.wte, x).add(w.wpe).reshape([B * T, C]);
  for (let i = 0; i < layers; i++) {
    const [q, k, v] = tf.split(dense(`${i}.qkv`, norm(`${i}.ln_1`, h)), 3, -1).map((part) =>
      part.reshape([B, T, NH, HS]).transpose([0, 2, 1, 3]),
    );
    const scores = tf.matMul(q, k, false, true).mul(1 / Math.sqrt(HS)).add(ahead);
    const attended = tf.matMul(tf.softmax(scores), v).transpose([0, 2, 1, 3]).reshape([B * T, C]);
    h = h.add(dense(`${i}.proj`, attended));
    h = h.add(dense(`${i}.fc_proj`, gelu(dense(`${i}.fc`, norm(`${i}.ln_2`, h)))));
  }
  const logits = norm("ln_f", h).matMul(w.wte, false, true);
  return tf.logSoftmax(logits).mul(y).sum().mul(-1 / (B * T));
}

function gelu(x) {
  const inner = x.add(x.square().mul(x).mul(0.044715)).mul(Math.sqrt(2 / Math.PI));
  return x.mul(0.5).mul(inner.tanh().add(1));
}

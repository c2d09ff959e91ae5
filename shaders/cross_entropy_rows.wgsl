// Softmax and cross-entropy as in cross_entropy.wgsl, one workgroup a row. One pass reads the row, with a
// running maximum and sum in each lane (Milakov and Gimelshein, arXiv 1805.02867); one more makes the gradient.
//
// Constants: N V LD SCALE GRADIENT LOSS_SCALING

@group(0) @binding(0) var<storage, read_write> logits: array<logits_type>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;  // [N]
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;  // [N], nats
@group(0) @binding(6) var<storage, read> loss_scale: array<f32>;  // [1], see adamw.wgsl

const LANES = 256u;

var<workgroup> reduced: array<vec2<f32>, 256>;  // (maximum, Σ exp(logit - maximum))

// Two such pairs as one. A lane that has seen nothing has the sum 0.
fn join(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  let largest = max(a.x, b.x);
  return vec2<f32>(largest, a.y * exp(a.x - largest) + b.y * exp(b.x - largest));
}

@compute @workgroup_size(256)
fn forward_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n = group.y * 65535u + group.x;
  if (n >= N) {
    return;
  }
  let row = n * LD;
  let target_logit = f32(logits[row + targets[n]]);
  var largest = -3.0e38;
  var sum = 0.0;
  for (var v = lane; v < V; v += LANES) {
    let logit = f32(logits[row + v]);
    if (logit > largest) {
      sum *= exp(largest - logit);
      largest = logit;
    }
    sum += exp(logit - largest);
  }
  reduced[lane] = vec2<f32>(largest, sum);
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      reduced[lane] = join(reduced[lane], reduced[lane + half]);
    }
  }
  let total = workgroupUniformLoad(&reduced[0]);  // a barrier, too: target_logit has been read by all lanes
  if (lane == 0u) {
    losses[n] = log(total.y) - (target_logit - total.x);
  }
  if (GRADIENT) {
    var by = SCALE;
    if (LOSS_SCALING) {
      by *= loss_scale[0];
    }
    let scale = by / total.y;
    for (var v = lane; v < V; v += LANES) {
      let p = exp(f32(logits[row + v]) - total.x) * scale;
      logits[row + v] = logits_type(p - select(0.0, by, v == targets[n]));
    }
    for (var v = V + lane; v < LD; v += LANES) {
      logits[row + v] = 0;
    }
  }
}

// Softmax and cross-entropy as in cross_entropy.wgsl, one workgroup a row. One pass reads the row, with a
// running maximum and sum in each lane (Milakov and Gimelshein, arXiv 1805.02867); one more makes the gradient,
// backwards, since what was read last may still be in a cache. Both take four numbers at a time, so LD must be a
// multiple of 4.
//
// Constants: N V LD SCALE GRADIENT LOSS_SCALING

@group(0) @binding(0) var<storage, read_write> logits: array<vec4<logits_type>>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;  // [N]
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;  // [N], nats
@group(0) @binding(6) var<storage, read> loss_scale: array<f32>;  // [1], see adamw.wgsl

const LANES = 256u;
const VECTORS = (V + 3u) / 4u;  // of a row, the last one perhaps in part
const LOWEST = -3.0e38;

var<workgroup> reduced: array<vec2<f32>, 256>;  // (maximum, Σ exp(logit - maximum))

// Two such pairs as one. A lane that has seen nothing has the sum 0.
fn join(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  let largest = max(a.x, b.x);
  return vec2<f32>(largest, a.y * exp(a.x - largest) + b.y * exp(b.x - largest));
}

fn sum_of(x: vec4<f32>) -> f32 {
  return (x.x + x.y) + (x.z + x.w);
}

fn numbers(v: u32) -> vec4<u32> {
  return 4u * v + vec4<u32>(0u, 1u, 2u, 3u);
}

// Vector v of the row that starts at vector `row`; the lowest of numbers beyond it
fn logits_at(row: u32, v: u32) -> vec4<f32> {
  return select(vec4<f32>(LOWEST), vec4<f32>(logits[row + min(v, VECTORS - 1u)]), numbers(v) < vec4<u32>(V));
}

@compute @workgroup_size(256)
fn forward_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n = group.y * 65535u + group.x;
  if (n >= N) {
    return;
  }
  let row = n * (LD / 4u);
  let target_logit = f32(logits[row + targets[n] / 4u][targets[n] % 4u]);
  var seen = vec2<f32>(LOWEST, 0.0);
  for (var v = lane; v < VECTORS; v += 2u * LANES) {
    let x = logits_at(row, v);
    let y = logits_at(row, v + LANES);
    let both = max(x, y);
    let largest = max(seen.x, max(max(both.x, both.y), max(both.z, both.w)));
    seen = vec2<f32>(largest, seen.y * exp(seen.x - largest) + sum_of(exp(x - largest) + exp(y - largest)));
  }
  reduced[lane] = seen;
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
    for (var u = lane; u < LD / 4u; u += LANES) {  // what lies beyond V becomes 0
      let v = LD / 4u - 1u - u;
      let p = exp(logits_at(row, v) - total.x) * scale;
      let gradient = p - select(vec4<f32>(), vec4<f32>(by), numbers(v) == vec4<u32>(targets[n]));
      logits[row + v] = vec4<logits_type>(gradient);
    }
  }
}

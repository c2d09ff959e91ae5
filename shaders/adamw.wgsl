// The optimiser's step over the flat arena: global gradient norm, clip, AdamW, and the step's bookkeeping.
//
//   norm_partial  one sum of squares a workgroup, and whether it met a number that is not finite
//   norm_total    norm = sqrt(Σ);  scale = min(1, CLIP / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_
//   update        AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), nothing if not finite; with COPY,
//                 the new parameters in f16 too
//   finish        counts the step and writes the ring buffer's row
//
// With LOSS_SCALING (Micikevicius et al., arXiv 1710.03740, section 3.2), gradients are loss_scale[0] times what
// they are: norm_total divides the norm and the clip scale by it. `finish` halves it after a step that was not
// finite, and doubles it after GROWTH good ones in a row. It is a power of two, so that nothing is rounded.
//
// counters = [step, updates applied, steps skipped, micro-batch]
// scalars  = [loss, gradient norm, clip scale, 1 if finite else 0]
// schedule[s] = (learning rate of step s, 1 / (1 - beta1^(s+1)), 1 / (1 - beta2^(s+1)), 0)
//
// Finite is decided by exponent bits, as WGSL may assume that there are no NaNs.

@group(0) @binding(0) var<storage, read> gradient: array<f32>;
@group(0) @binding(1) var<storage, read_write> squares: array<f32>;  // one a workgroup
@group(0) @binding(2) var<storage, read_write> flaws: array<u32>;  // 1 where a workgroup met Inf or NaN
@group(0) @binding(3) var<storage, read> all_squares: array<f32>;
@group(0) @binding(4) var<storage, read> all_flaws: array<u32>;
@group(0) @binding(5) var<storage, read_write> scalars: array<f32>;
@group(0) @binding(6) var<storage, read> settled: array<f32>;  // the scalars, read again
@group(0) @binding(7) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(8) var<storage, read_write> mean: array<f32>;
@group(0) @binding(9) var<storage, read_write> variance: array<f32>;
@group(0) @binding(10) var<storage, read> schedule: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read> counters: array<u32>;
@group(0) @binding(12) var<storage, read_write> counts: array<u32>;  // the counters, to be written
@group(0) @binding(13) var<storage, read_write> ring: array<vec4<f32>>;  // (loss, norm, learning rate, skipped)
@group(0) @binding(14) var<storage, read> loss_scale: array<f32>;  // [1]
@group(0) @binding(15) var<storage, read_write> next_loss_scale: array<f32>;  // the loss scale, to be written
@group(0) @binding(16) var<storage, read_write> streak: array<u32>;  // [1], good steps since it changed
@group(0) @binding(17) var<storage, read_write> copy: array<copy_type>;  // of the parameter

var<workgroup> shared_square: array<f32, 256>;
var<workgroup> shared_flaw: array<u32, 256>;

fn finite(v: f32) -> bool {
  return (bitcast<u32>(v) & 0x7f800000u) != 0x7f800000u;
}

// Workgroup g of GROUPS adds up elements g·256 + lane, and on in strides of GROUPS·256; its sum goes to
// squares[SLOT + g].
// Constants: N GROUPS SLOT
@compute @workgroup_size(256)
fn norm_partial(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  var flaw = 0u;
  for (var i = group.x * 256u + lane; i < N; i += GROUPS * 256u) {
    let g = gradient[i];
    sum = fma(g, g, sum);
    flaw |= select(1u, 0u, finite(g));
  }
  shared_square[lane] = sum;
  shared_flaw[lane] = flaw;
  for (var half = 128u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      shared_square[lane] += shared_square[lane + half];
      shared_flaw[lane] |= shared_flaw[lane + half];
    }
  }
  if (lane == 0u) {
    squares[SLOT + group.x] = shared_square[0];
    flaws[SLOT + group.x] = shared_flaw[0];
  }
}

// Constants: SLOTS CLIP LOSS_SCALING
@compute @workgroup_size(256)
fn norm_total(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  var flaw = 0u;
  for (var i = lane; i < SLOTS; i += 256u) {
    sum += all_squares[i];
    flaw |= all_flaws[i];
  }
  shared_square[lane] = sum;
  shared_flaw[lane] = flaw;
  for (var half = 128u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      shared_square[lane] += shared_square[lane + half];
      shared_flaw[lane] |= shared_flaw[lane + half];
    }
  }
  if (lane == 0u) {
    var unscale = 1.0;
    if (LOSS_SCALING) {
      unscale = 1.0 / loss_scale[0];
    }
    let norm = sqrt(shared_square[0]) * unscale;
    let good = shared_flaw[0] == 0u && finite(norm) && finite(scalars[0]);
    scalars[1] = norm;
    scalars[2] = min(1.0, CLIP / (norm + 1e-6)) * unscale;
    scalars[3] = select(0.0, 1.0, good);
  }
}

// MEAN_RATE is 1 - beta1 and VARIANCE_RATE 1 - beta2, as computed in f64: in f32, 1 - 0.999 is 5e-5 off.
// Constants: N MEAN_RATE BETA2 VARIANCE_RATE EPSILON DECAY COPY
@compute @workgroup_size(256)
fn update(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * 65535u + group.x) * 256u + lane;
  if (i >= N || settled[3] == 0.0) {
    return;
  }
  let rate = schedule[counters[0]].x;
  let correction = schedule[counters[1]].yz;
  let g = gradient[i] * settled[2];
  let m = mean[i] + MEAN_RATE * (g - mean[i]);
  let v = BETA2 * variance[i] + VARIANCE_RATE * g * g;
  mean[i] = m;
  variance[i] = v;
  let old = parameter[i];
  let p = old - rate * (DECAY * old + m * correction.x / (sqrt(v * correction.y) + EPSILON));
  parameter[i] = p;
  if (COPY) {
    copy[i] = copy_type(p);
  }
}

// Constants: RING LOSS_SCALING GROWTH
@compute @workgroup_size(1)
fn finish() {
  let good = scalars[3] != 0.0;
  let step = counts[0];
  ring[step % RING] = vec4<f32>(scalars[0], scalars[1], schedule[step].x, 1.0 - scalars[3]);
  counts[0] = step + 1u;
  counts[1] += select(0u, 1u, good);
  counts[2] += select(1u, 0u, good);
  counts[3] = 0u;
  if (LOSS_SCALING) {
    let enough = streak[0] + 1u == GROWTH;
    if (!good) {
      next_loss_scale[0] = max(1.0, 0.5 * next_loss_scale[0]);
    } else if (enough) {
      next_loss_scale[0] *= 2.0;
    }
    streak[0] = select(streak[0] + 1u, 0u, enough || !good);
  }
}

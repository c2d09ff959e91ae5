// The optimiser's step over the flat arena: global gradient norm, clip, AdamW, and the step's bookkeeping.
//
//   norm_partial  one sum of squares a workgroup
//   settle        norm = sqrt(Σ);  scale = min(1, CLIP / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_;
//                 counts the step, and writes the ring buffer's row
//   update        AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), nothing if not finite; with COPY,
//                 the new matrices in f16 too
//
// With LOSS_SCALING (Micikevicius et al., arXiv 1710.03740, section 3.2), gradients are loss_scale[0] times what
// they are: `settle` divides the norm and the clip scale by it. Then it halves it if the step was not finite, and
// doubles it after GROWTH good ones in a row. It is a power of two, so that nothing is rounded.
//
// counters = [step, updates applied, steps skipped, micro-batch]
// scalars  = [loss, gradient norm, clip scale, 1 if finite else 0, learning rate, and the two corrections]
// schedule[s] = (learning rate of step s, 1 / (1 - beta1^(s+1)), 1 / (1 - beta2^(s+1)), 0)
//
// Finite is decided by exponent bits, as WGSL may assume that there are no NaNs. The arena is read and written
// four numbers at a time: N and DECAYED are multiples of 4.

@group(0) @binding(0) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> squares: array<f32>;  // one a workgroup: FLAW if it met Inf or NaN
@group(0) @binding(2) var<storage, read> all_squares: array<f32>;
@group(0) @binding(3) var<storage, read_write> scalars: array<f32>;
@group(0) @binding(4) var<storage, read> settled: array<f32>;  // the scalars, read again
@group(0) @binding(5) var<storage, read_write> parameter: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> mean: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> variance: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> schedule: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> counters: array<u32>;
@group(0) @binding(10) var<storage, read_write> ring: array<vec4<f32>>;  // (loss, norm, learning rate, skipped)
@group(0) @binding(11) var<storage, read_write> loss_scale: array<f32>;  // [1]
@group(0) @binding(12) var<storage, read_write> streak: array<u32>;  // [1], good steps since it changed
@group(0) @binding(13) var<storage, read_write> copy: array<vec4<copy_type>>;  // of the parameter's first DECAYED

const FLAW = -1.0;  // what no sum of squares is

var<workgroup> sums: array<f32, 256>;

fn finite(v: f32) -> bool {
  return (bitcast<u32>(v) & 0x7f800000u) != 0x7f800000u;
}

fn all_finite(v: vec4<f32>) -> bool {
  return all((bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u));
}

fn join(a: f32, b: f32) -> f32 {
  return select(a + b, FLAW, min(a, b) < 0.0);
}

// Σ of the lanes' sums, in a fixed order; lane 0 gets it.
fn sum_of_lanes(lane: u32, sum: f32) -> f32 {
  sums[lane] = sum;
  for (var half = 128u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      sums[lane] = join(sums[lane], sums[lane + half]);
    }
  }
  return sums[0];
}

// Workgroup g of GROUPS adds up vectors g·256 + lane, and on in strides of GROUPS·256; its sum goes to
// squares[SLOT + g].
// Constants: N GROUPS SLOT
@compute @workgroup_size(256)
fn norm_partial(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var sum = vec4<f32>();
  var good = true;
  for (var i = group.x * 256u + lane; i < N / 4u; i += GROUPS * 256u) {
    let g = gradient[i];
    sum = fma(g, g, sum);
    good &= all_finite(g);
  }
  let of_group = sum_of_lanes(lane, select(FLAW, (sum.x + sum.y) + (sum.z + sum.w), good));
  if (lane == 0u) {
    squares[SLOT + group.x] = of_group;
  }
}

// Constants: SLOTS CLIP RING LOSS_SCALING GROWTH
@compute @workgroup_size(256)
fn settle(@builtin(local_invocation_index) lane: u32) {
  var of_lane = 0.0;
  for (var i = lane; i < SLOTS; i += 256u) {
    of_lane = join(of_lane, all_squares[i]);
  }
  let sum = sum_of_lanes(lane, of_lane);
  if (lane > 0u) {
    return;
  }
  var unscale = 1.0;
  if (LOSS_SCALING) {
    unscale = 1.0 / loss_scale[0];
  }
  // With a flaw, a NaN; not written as one, which a compiler need not accept.
  let norm = bitcast<f32>(select(bitcast<u32>(sqrt(max(sum, 0.0)) * unscale), 0x7fc00000u, sum < 0.0));
  let good = sum >= 0.0 && finite(norm) && finite(scalars[0]);
  let step = counters[0];
  let now = schedule[step];
  let corrections = schedule[counters[1]].yz;
  scalars[1] = norm;
  scalars[2] = min(1.0, CLIP / (norm + 1e-6)) * unscale;
  scalars[3] = select(0.0, 1.0, good);
  scalars[4] = now.x;
  scalars[5] = corrections.x;
  scalars[6] = corrections.y;
  ring[step % RING] = vec4<f32>(scalars[0], norm, now.x, select(1.0, 0.0, good));
  counters[0] = step + 1u;
  counters[1] += select(0u, 1u, good);
  counters[2] += select(1u, 0u, good);
  counters[3] = 0u;
  if (LOSS_SCALING) {
    let enough = streak[0] + 1u == GROWTH;
    if (!good) {
      loss_scale[0] = max(1.0, 0.5 * loss_scale[0]);
    } else if (enough) {
      loss_scale[0] *= 2.0;
    }
    streak[0] = select(streak[0] + 1u, 0u, enough || !good);
  }
}

// The first DECAYED elements are matrices, which decay and have copies. MEAN_RATE is 1 - beta1 and VARIANCE_RATE
// 1 - beta2, as computed in f64: in f32, 1 - 0.999 is 5e-5 off.
// Constants: N DECAYED MEAN_RATE BETA2 VARIANCE_RATE EPSILON DECAY COPY
@compute @workgroup_size(256)
fn update(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (4u * i >= N || settled[3] == 0.0) {
    return;
  }
  let g = gradient[i] * settled[2];
  let m = mean[i] + MEAN_RATE * (g - mean[i]);
  let v = BETA2 * variance[i] + VARIANCE_RATE * g * g;
  mean[i] = m;
  variance[i] = v;
  let old = parameter[i];
  let decay = select(0.0, DECAY, 4u * i < DECAYED);
  let p = old - settled[4] * (decay * old + m * settled[5] / (sqrt(v * settled[6]) + EPSILON));
  parameter[i] = p;
  if (COPY && 4u * i < DECAYED) {
    copy[i] = vec4<copy_type>(p);
  }
}

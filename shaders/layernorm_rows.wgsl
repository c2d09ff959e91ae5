// LayerNorm and its backward as in layernorm.wgsl, for GPUs: LANES threads share a row, and a workgroup has as
// many rows as fit into it. A thread reads its numbers of a row once, four at a time, and keeps them in
// registers. C must be a multiple of 4.
//
// `backward_fused` is backward and backward_parameters at once, so that x and dout are read once for both: the
// workgroup of a part walks through its rows, and its threads add up their columns on the way. With SUM_DX they add
// up those of dx, too, before it is rounded to what dx stores: where x = … + b, the gradient of b is Σ_n dx.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<out_type>>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read> kept: array<vec2<f32>>;  // the statistics, read again
@group(0) @binding(6) var<storage, read> dout: array<vec4<dout_type>>;
@group(0) @binding(7) var<storage, read_write> dx: array<vec4<dx_type>>;
@group(0) @binding(8) var<storage, read_write> sums: array<f32>;  // as in layernorm.wgsl, and dx's from 0 on

const EPSILON = 1e-5;
const THREADS = 256u;
const AT_ONCE = THREADS / LANES;  // rows of a workgroup
const VECTORS = C / 4u;  // of a row
const HELD = (VECTORS + LANES - 1u) / LANES;  // of them, what a thread has
const STRIPS = 8u;  // threads of a row that add up what all its threads have

var<workgroup> shares: array<vec4<f32>, THREADS>;
var<workgroup> strips: array<vec4<f32>, AT_ONCE * STRIPS>;

// Whether vector v is one of the row: the last of a thread's may not be.
fn inside(v: u32) -> bool {
  return VECTORS % LANES == 0u || v < VECTORS;
}

// Σ of the shares that the threads of a row have, in a fixed order; each of them gets it. Two barriers, so that a
// second sum may follow the first at once.
fn sum_of_row(thread: u32, share: vec4<f32>) -> vec4<f32> {
  let lane = thread % LANES;
  let first = thread / LANES * STRIPS;
  shares[thread] = share;
  workgroupBarrier();
  if (lane < STRIPS) {
    var sum = share;
    for (var i = STRIPS; i < LANES; i += STRIPS) {
      sum += shares[thread + i];
    }
    strips[first + lane] = sum;
  }
  workgroupBarrier();
  var all = strips[first];
  for (var i = 1u; i < STRIPS; i++) {
    all += strips[first + i];
  }
  return all;
}

fn sum_of(v: vec4<f32>) -> f32 {
  return (v.x + v.y) + (v.z + v.w);
}

// Constants: N C LANES
@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lane = thread % LANES;
  let n = (group.y * 65535u + group.x) * AT_ONCE + thread / LANES;
  let row = min(n, N - 1u) * VECTORS;
  var held: array<vec4<f32>, HELD>;
  var sum = vec4<f32>();
  for (var i = 0u; i < HELD; i++) {
    let v = lane + i * LANES;
    held[i] = x[row + min(v, VECTORS - 1u)];
    sum += select(vec4<f32>(), held[i], inside(v));
  }
  let mean = sum_of(sum_of_row(thread, sum)) / f32(C);
  var squares = vec4<f32>();
  for (var i = 0u; i < HELD; i++) {
    let d = held[i] - mean;
    squares += select(vec4<f32>(), d * d, inside(lane + i * LANES));
  }
  let rstd = inverseSqrt(sum_of(sum_of_row(thread, squares)) / f32(C) + EPSILON);
  for (var i = 0u; i < HELD; i++) {
    let v = lane + i * LANES;
    if (n < N && inside(v)) {
      out[row + v] = vec4<out_type>((held[i] - mean) * rstd * weight[v] + bias[v]);
    }
  }
  if (n < N && lane == 0u) {
    statistics[n] = vec2<f32>(mean, rstd);
  }
}

// Constants: N C ADD SUM_DX ROWS STRIDE WIDTH WEIGHT BIAS LANES
@compute @workgroup_size(THREADS)
fn backward_fused(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lane = thread % LANES;
  let part = group.y;
  let end = min((part + 1u) * ROWS, N);
  var sum_weight: array<vec4<f32>, HELD>;
  var sum_bias: array<vec4<f32>, HELD>;
  var sum_dx: array<vec4<f32>, HELD>;
  for (var start = part * ROWS; start < end; start += AT_ONCE) {
    let n = start + thread / LANES;
    let row = min(n, end - 1u) * VECTORS;
    let mean = kept[min(n, end - 1u)].x;
    let rstd = kept[min(n, end - 1u)].y;
    var old: array<vec4<dx_type>, HELD>;  // asked for before anything waits
    for (var i = 0u; ADD && i < HELD; i++) {
      old[i] = dx[row + min(lane + i * LANES, VECTORS - 1u)];
    }
    var normed: array<vec4<f32>, HELD>;
    var g: array<vec4<f32>, HELD>;
    var sum_g = vec4<f32>();
    var sum_gx = vec4<f32>();
    for (var i = 0u; i < HELD; i++) {
      let v = min(lane + i * LANES, VECTORS - 1u);
      let d = select(vec4<f32>(), vec4<f32>(dout[row + v]), n < end && inside(lane + i * LANES));
      normed[i] = (x[row + v] - mean) * rstd;
      sum_weight[i] += d * normed[i];
      sum_bias[i] += d;
      g[i] = d * weight[v];
      sum_g += g[i];
      sum_gx += g[i] * normed[i];
    }
    let both = sum_of_row(thread, vec4<f32>(sum_g.xy + sum_g.zw, sum_gx.xy + sum_gx.zw)) / f32(C);
    for (var i = 0u; i < HELD; i++) {
      let v = lane + i * LANES;
      if (n < end && inside(v)) {
        var d = rstd * (g[i] - (both.x + both.y) - normed[i] * (both.z + both.w));
        if (ADD) {
          d += vec4<f32>(old[i]);
        }
        if (SUM_DX) {
          sum_dx[i] += d;
        }
        dx[row + v] = vec4<dx_type>(d);
      }
    }
  }
  for (var i = 0u; i < HELD; i++) {
    var of_weight = vec4<f32>();
    var of_bias = vec4<f32>();
    var of_dx = vec4<f32>();
    for (var j = 0u; j < HELD; j++) {  // because sum_weight[i], in a loop with barriers, would live in memory
      of_weight = select(of_weight, sum_weight[j], i == j);
      of_bias = select(of_bias, sum_bias[j], i == j);
      of_dx = select(of_dx, sum_dx[j], i == j);
    }
    of_weight = sum_of_column(thread, of_weight);
    of_bias = sum_of_column(thread, of_bias);
    if (SUM_DX) {
      of_dx = sum_of_column(thread, of_dx);
    }
    let v = lane + i * LANES;
    if (thread < LANES && inside(v)) {
      write_sums(part * STRIDE + WEIGHT + 4u * v, of_weight);
      write_sums(part * STRIDE + BIAS + 4u * v, of_bias);
      if (SUM_DX) {
        write_sums(part * STRIDE + 4u * v, of_dx);
      }
    }
  }
  for (var c = C + thread; c < WIDTH; c += THREADS) {  // between this vector and the next
    sums[part * STRIDE + WEIGHT + c] = 0.0;
    sums[part * STRIDE + BIAS + c] = 0.0;
    if (SUM_DX) {
      sums[part * STRIDE + c] = 0.0;
    }
  }
}

// Σ over the rows of a workgroup of what the threads of a column have; those of the first row get it.
fn sum_of_column(thread: u32, share: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  shares[thread] = share;
  workgroupBarrier();
  var all = share;
  for (var i = thread + LANES; i < THREADS; i += LANES) {
    all += shares[i];
  }
  return all;
}

fn write_sums(at: u32, four: vec4<f32>) {
  sums[at] = four.x;
  sums[at + 1u] = four.y;
  sums[at + 2u] = four.z;
  sums[at + 3u] = four.w;
}

// LayerNorm and its backward as in layernorm.wgsl, one workgroup a row: the lanes share its channels, so that
// neighbours read neighbouring numbers.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<out_type>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read> kept: array<vec2<f32>>;  // the statistics, read again
@group(0) @binding(6) var<storage, read> dout: array<dout_type>;
@group(0) @binding(7) var<storage, read_write> dx: array<dx_type>;

const EPSILON = 1e-5;
const LANES = 128u;

var<workgroup> sums: array<vec2<f32>, 128>;

// Σ of the lanes' values, in a fixed order; every lane gets it.
fn sum_of_lanes(lane: u32, value: vec2<f32>) -> vec2<f32> {
  sums[lane] = value;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      sums[lane] += sums[lane + half];
    }
  }
  return workgroupUniformLoad(&sums[0]);
}

// Constants: N C
@compute @workgroup_size(128)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n = group.y * 65535u + group.x;
  if (n >= N) {
    return;
  }
  var sum = 0.0;
  for (var c = lane; c < C; c += LANES) {
    sum += x[n * C + c];
  }
  let mean = sum_of_lanes(lane, vec2<f32>(sum, 0.0)).x / f32(C);
  var squares = 0.0;
  for (var c = lane; c < C; c += LANES) {
    let d = x[n * C + c] - mean;
    squares += d * d;
  }
  let rstd = inverseSqrt(sum_of_lanes(lane, vec2<f32>(squares, 0.0)).x / f32(C) + EPSILON);
  for (var c = lane; c < C; c += LANES) {
    out[n * C + c] = out_type((x[n * C + c] - mean) * rstd * weight[c] + bias[c]);
  }
  if (lane == 0u) {
    statistics[n] = vec2<f32>(mean, rstd);
  }
}

// Constants: N C ADD
@compute @workgroup_size(128)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n = group.y * 65535u + group.x;
  if (n >= N) {
    return;
  }
  let mean = kept[n].x;
  let rstd = kept[n].y;
  var sum = vec2<f32>();  // of g and of g · x̂
  for (var c = lane; c < C; c += LANES) {
    let g = f32(dout[n * C + c]) * weight[c];
    sum += vec2<f32>(g, g * (x[n * C + c] - mean) * rstd);
  }
  let means = sum_of_lanes(lane, sum) / f32(C);
  for (var c = lane; c < C; c += LANES) {
    let i = n * C + c;
    var d = rstd * (f32(dout[i]) * weight[c] - means.x - (x[i] - mean) * rstd * means.y);
    if (ADD) {
      d += f32(dx[i]);
    }
    dx[i] = dx_type(d);
  }
}

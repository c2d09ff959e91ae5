// LayerNorm over the channels of each row, and its backward. The naive variant: one thread a row.
//
//   out = (x - mean) · rstd · weight + bias           x, out (N, C), N = B·T;  weight, bias (C)
//   statistics[n] = (mean, rstd)                      kept for the backward pass
//
// Backward, with x̂ = (x - mean) · rstd and g = dout · weight:
//   dx      = rstd · (g - mean(g) - x̂ · mean(g · x̂))
//   dweight = Σ_n dout · x̂,  dbias = Σ_n dout         in two stages, here and in column_sum.wgsl

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<out_type>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read> kept: array<vec2<f32>>;  // the statistics, read again
@group(0) @binding(6) var<storage, read> dout: array<dout_type>;
@group(0) @binding(7) var<storage, read_write> dx: array<dx_type>;
@group(0) @binding(8) var<storage, read_write> sums: array<f32>;  // [p · STRIDE + c], from WEIGHT and BIAS on

const EPSILON = 1e-5;

// Constants: N C
@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  if (n >= N) {
    return;
  }
  var sum = 0.0;
  for (var c = 0u; c < C; c++) {
    sum += x[n * C + c];
  }
  let mean = sum / f32(C);
  var squares = 0.0;
  for (var c = 0u; c < C; c++) {
    let d = x[n * C + c] - mean;
    squares += d * d;
  }
  let rstd = inverseSqrt(squares / f32(C) + EPSILON);
  for (var c = 0u; c < C; c++) {
    out[n * C + c] = out_type((x[n * C + c] - mean) * rstd * weight[c] + bias[c]);
  }
  statistics[n] = vec2<f32>(mean, rstd);
}

// Constants: N C ADD
@compute @workgroup_size(64)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  if (n >= N) {
    return;
  }
  let mean = kept[n].x;
  let rstd = kept[n].y;
  var sum_g = 0.0;
  var sum_gx = 0.0;
  for (var c = 0u; c < C; c++) {
    let g = f32(dout[n * C + c]) * weight[c];
    sum_g += g;
    sum_gx += g * (x[n * C + c] - mean) * rstd;
  }
  let mean_g = sum_g / f32(C);
  let mean_gx = sum_gx / f32(C);
  for (var c = 0u; c < C; c++) {
    let i = n * C + c;
    var d = rstd * (f32(dout[i]) * weight[c] - mean_g - (x[i] - mean) * rstd * mean_gx);
    if (ADD) {
      d += f32(dx[i]);
    }
    dx[i] = dx_type(d);
  }
}

// Sums over ROWS rows each; one thread a column and part. Columns C .. WIDTH-1 lie between this vector and the
// next: they become 0.
// Constants: N C ROWS STRIDE WIDTH WEIGHT BIAS
@compute @workgroup_size(64)
fn backward_parameters(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let part = id.y;
  if (c >= WIDTH) {
    return;
  }
  var sum_weight = 0.0;
  var sum_bias = 0.0;
  if (c < C) {
    for (var n = part * ROWS; n < min((part + 1u) * ROWS, N); n++) {
      let d = f32(dout[n * C + c]);
      sum_weight += d * (x[n * C + c] - kept[n].x) * kept[n].y;
      sum_bias += d;
    }
  }
  sums[part * STRIDE + WEIGHT + c] = sum_weight;
  sums[part * STRIDE + BIAS + c] = sum_bias;
}

// out[M, N] = op(a) · op(b), with an epilogue. The naive variant: one thread an output, any shape.
//
//   op(a) is [M, K]: stored so, or [K, M] if TRANSPOSE_A      (row stride LDA)
//   op(b) is [K, N]: stored so, or [N, K] if TRANSPOSE_B      (row stride LDB)
//   out   is [M, N]                                           (row stride LDO)
//
// Epilogue, in this order, each part only if its constant is set:
//   BIAS           s += bias[n]                                        bias [N]
//   GELU           extra[m, n] = s;  s = gelu(s)                       keeps the pre-activation for backward
//   GELU_BACKWARD  s *= gelu'(aux[m, n])                               aux = that pre-activation
//   RESIDUAL       s += aux[m, n]                                      aux [M, N]
//   ADD            s += out[m, n]                                      gradient accumulation
//
// Sums and the epilogue are f32, whatever a, b, aux, out and extra are stored as.
//
// Constants: M N K LDA LDB LDO TRANSPOSE_A TRANSPOSE_B BIAS GELU GELU_BACKWARD RESIDUAL ADD, and PART, SHORT,
// TILE_M and TILE_N for the variants with tiles

@group(0) @binding(0) var<storage, read> a: array<a_type>;
@group(0) @binding(1) var<storage, read> b: array<b_type>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> aux: array<aux_type>;
@group(0) @binding(4) var<storage, read_write> out: array<out_type>;
@group(0) @binding(5) var<storage, read_write> extra: array<extra_type>;

const SQRT_2_OVER_PI = 0.7978845608028654;

// tanh overflows in exp for large arguments on some drivers, and is ±1 to the last bit beyond ±10.
fn gelu(x: f32) -> f32 {
  let t = tanh(clamp(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x), -10.0, 10.0));
  return 0.5 * x * (1.0 + t);
}

fn gelu_backward(x: f32) -> f32 {
  let t = tanh(clamp(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x), -10.0, 10.0));
  let dt = (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x * x);
  return 0.5 * (1.0 + t) + 0.5 * x * dt;
}

@compute @workgroup_size(16, 8)
fn multiply(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  let m = id.y;
  if (m >= M || n >= N) {
    return;
  }
  var s = 0.0;
  for (var k = 0u; k < K; k++) {
    let x = f32(a[select(m * LDA + k, k * LDA + m, TRANSPOSE_A)]);
    let y = f32(b[select(k * LDB + n, n * LDB + k, TRANSPOSE_B)]);
    s = fma(x, y, s);
  }
  let i = m * LDO + n;
  if (BIAS) {
    s += bias[n];
  }
  if (GELU) {
    extra[i] = extra_type(s);
    s = gelu(s);
  }
  if (GELU_BACKWARD) {
    s *= gelu_backward(f32(aux[i]));
  }
  if (RESIDUAL) {
    s += f32(aux[i]);
  }
  if (ADD) {
    s += f32(out[i]);
  }
  out[i] = out_type(s);
}

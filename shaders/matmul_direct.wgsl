// out[M, N] = op(a) · op(b), with the epilogue of matmul.wgsl. A tile of 8×8 outputs in the registers of one
// thread, no workgroup memory and no barrier: the fastest on software renderers, where barriers are dear.
//
// Reads and writes four numbers at a time, so LDA, LDB, LDO and N must be multiples of 4, as must K
// unless TRANSPOSE_A and M if TRANSPOSE_A (then K is free, and b must not be transposed). Rows and columns
// beyond the edge are computed from clamped addresses and not stored.
//
// Constants: as matmul.wgsl

@group(0) @binding(0) var<storage, read> a: array<vec4<a_type>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<b_type>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> aux: array<vec4<aux_type>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<out_type>>;
@group(0) @binding(5) var<storage, read_write> extra: array<vec4<extra_type>>;

const SQRT_2_OVER_PI = 0.7978845608028654;

fn gelu(x: vec4<f32>) -> vec4<f32> {
  let u = SQRT_2_OVER_PI * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1.0 + tanh(clamp(u, vec4<f32>(-10.0), vec4<f32>(10.0))));
}

fn gelu_backward(x: vec4<f32>) -> vec4<f32> {
  let u = SQRT_2_OVER_PI * (x + 0.044715 * x * x * x);
  let t = tanh(clamp(u, vec4<f32>(-10.0), vec4<f32>(10.0)));
  let dt = (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x * x);
  return 0.5 * (1.0 + t) + 0.5 * x * dt;
}

fn store(m: u32, n: u32, value: vec4<f32>) {
  if (m >= M || n >= N) {
    return;
  }
  let i = (m * LDO + n) / 4u;
  var s = value;
  if (BIAS) {
    s += bias[n / 4u];
  }
  if (GELU) {
    extra[i] = vec4<extra_type>(s);
    s = gelu(s);
  }
  if (GELU_BACKWARD) {
    s *= gelu_backward(vec4<f32>(aux[i]));
  }
  if (RESIDUAL) {
    s += vec4<f32>(aux[i]);
  }
  if (ADD) {
    s += vec4<f32>(out[i]);
  }
  out[i] = vec4<out_type>(s);
}

@compute @workgroup_size(4, 4)
fn multiply(@builtin(global_invocation_id) id: vec3<u32>) {
  let m = id.y * 8u;
  let n = id.x * 8u;
  // c<row>_<half>: four outputs each
  var c0_0 = vec4<f32>(); var c0_1 = vec4<f32>();
  var c1_0 = vec4<f32>(); var c1_1 = vec4<f32>();
  var c2_0 = vec4<f32>(); var c2_1 = vec4<f32>();
  var c3_0 = vec4<f32>(); var c3_1 = vec4<f32>();
  var c4_0 = vec4<f32>(); var c4_1 = vec4<f32>();
  var c5_0 = vec4<f32>(); var c5_1 = vec4<f32>();
  var c6_0 = vec4<f32>(); var c6_1 = vec4<f32>();
  var c7_0 = vec4<f32>(); var c7_1 = vec4<f32>();
  // Row (or column) numbers, clamped to the last one that exists
  if (TRANSPOSE_A) {
    let m0 = min(m, M - 4u) / 4u;
    let m1 = min(m + 4u, M - 4u) / 4u;
    let n0 = min(n, N - 4u) / 4u;
    let n1 = min(n + 4u, N - 4u) / 4u;
    for (var k = 0u; k < K; k++) {
      let x0 = vec4<f32>(a[k * (LDA / 4u) + m0]);
      let x1 = vec4<f32>(a[k * (LDA / 4u) + m1]);
      let y0 = vec4<f32>(b[k * (LDB / 4u) + n0]);
      let y1 = vec4<f32>(b[k * (LDB / 4u) + n1]);
      c0_0 = fma(vec4<f32>(x0.x), y0, c0_0); c0_1 = fma(vec4<f32>(x0.x), y1, c0_1);
      c1_0 = fma(vec4<f32>(x0.y), y0, c1_0); c1_1 = fma(vec4<f32>(x0.y), y1, c1_1);
      c2_0 = fma(vec4<f32>(x0.z), y0, c2_0); c2_1 = fma(vec4<f32>(x0.z), y1, c2_1);
      c3_0 = fma(vec4<f32>(x0.w), y0, c3_0); c3_1 = fma(vec4<f32>(x0.w), y1, c3_1);
      c4_0 = fma(vec4<f32>(x1.x), y0, c4_0); c4_1 = fma(vec4<f32>(x1.x), y1, c4_1);
      c5_0 = fma(vec4<f32>(x1.y), y0, c5_0); c5_1 = fma(vec4<f32>(x1.y), y1, c5_1);
      c6_0 = fma(vec4<f32>(x1.z), y0, c6_0); c6_1 = fma(vec4<f32>(x1.z), y1, c6_1);
      c7_0 = fma(vec4<f32>(x1.w), y0, c7_0); c7_1 = fma(vec4<f32>(x1.w), y1, c7_1);
    }
  } else {
    let a0 = min(m + 0u, M - 1u) * (LDA / 4u);
    let a1 = min(m + 1u, M - 1u) * (LDA / 4u);
    let a2 = min(m + 2u, M - 1u) * (LDA / 4u);
    let a3 = min(m + 3u, M - 1u) * (LDA / 4u);
    let a4 = min(m + 4u, M - 1u) * (LDA / 4u);
    let a5 = min(m + 5u, M - 1u) * (LDA / 4u);
    let a6 = min(m + 6u, M - 1u) * (LDA / 4u);
    let a7 = min(m + 7u, M - 1u) * (LDA / 4u);
    if (TRANSPOSE_B) {
      let b0 = min(n + 0u, N - 1u) * (LDB / 4u);
      let b1 = min(n + 1u, N - 1u) * (LDB / 4u);
      let b2 = min(n + 2u, N - 1u) * (LDB / 4u);
      let b3 = min(n + 3u, N - 1u) * (LDB / 4u);
      let b4 = min(n + 4u, N - 1u) * (LDB / 4u);
      let b5 = min(n + 5u, N - 1u) * (LDB / 4u);
      let b6 = min(n + 6u, N - 1u) * (LDB / 4u);
      let b7 = min(n + 7u, N - 1u) * (LDB / 4u);
      for (var k = 0u; k < K / 4u; k++) {
        let y0 = vec4<f32>(b[b0 + k]);
        let y1 = vec4<f32>(b[b1 + k]);
        let y2 = vec4<f32>(b[b2 + k]);
        let y3 = vec4<f32>(b[b3 + k]);
        let y4 = vec4<f32>(b[b4 + k]);
        let y5 = vec4<f32>(b[b5 + k]);
        let y6 = vec4<f32>(b[b6 + k]);
        let y7 = vec4<f32>(b[b7 + k]);
        // columns of the 4×4 blocks of op(b), so that the products below add up vector by vector
        let t0_0 = vec4<f32>(y0.x, y1.x, y2.x, y3.x);
        let t1_0 = vec4<f32>(y0.y, y1.y, y2.y, y3.y);
        let t2_0 = vec4<f32>(y0.z, y1.z, y2.z, y3.z);
        let t3_0 = vec4<f32>(y0.w, y1.w, y2.w, y3.w);
        let t0_1 = vec4<f32>(y4.x, y5.x, y6.x, y7.x);
        let t1_1 = vec4<f32>(y4.y, y5.y, y6.y, y7.y);
        let t2_1 = vec4<f32>(y4.z, y5.z, y6.z, y7.z);
        let t3_1 = vec4<f32>(y4.w, y5.w, y6.w, y7.w);
        let x0 = vec4<f32>(a[a0 + k]);
        let x1 = vec4<f32>(a[a1 + k]);
        let x2 = vec4<f32>(a[a2 + k]);
        let x3 = vec4<f32>(a[a3 + k]);
        let x4 = vec4<f32>(a[a4 + k]);
        let x5 = vec4<f32>(a[a5 + k]);
        let x6 = vec4<f32>(a[a6 + k]);
        let x7 = vec4<f32>(a[a7 + k]);
        c0_0 = fma(vec4<f32>(x0.x), t0_0, c0_0); c0_1 = fma(vec4<f32>(x0.x), t0_1, c0_1);
        c0_0 = fma(vec4<f32>(x0.y), t1_0, c0_0); c0_1 = fma(vec4<f32>(x0.y), t1_1, c0_1);
        c0_0 = fma(vec4<f32>(x0.z), t2_0, c0_0); c0_1 = fma(vec4<f32>(x0.z), t2_1, c0_1);
        c0_0 = fma(vec4<f32>(x0.w), t3_0, c0_0); c0_1 = fma(vec4<f32>(x0.w), t3_1, c0_1);
        c1_0 = fma(vec4<f32>(x1.x), t0_0, c1_0); c1_1 = fma(vec4<f32>(x1.x), t0_1, c1_1);
        c1_0 = fma(vec4<f32>(x1.y), t1_0, c1_0); c1_1 = fma(vec4<f32>(x1.y), t1_1, c1_1);
        c1_0 = fma(vec4<f32>(x1.z), t2_0, c1_0); c1_1 = fma(vec4<f32>(x1.z), t2_1, c1_1);
        c1_0 = fma(vec4<f32>(x1.w), t3_0, c1_0); c1_1 = fma(vec4<f32>(x1.w), t3_1, c1_1);
        c2_0 = fma(vec4<f32>(x2.x), t0_0, c2_0); c2_1 = fma(vec4<f32>(x2.x), t0_1, c2_1);
        c2_0 = fma(vec4<f32>(x2.y), t1_0, c2_0); c2_1 = fma(vec4<f32>(x2.y), t1_1, c2_1);
        c2_0 = fma(vec4<f32>(x2.z), t2_0, c2_0); c2_1 = fma(vec4<f32>(x2.z), t2_1, c2_1);
        c2_0 = fma(vec4<f32>(x2.w), t3_0, c2_0); c2_1 = fma(vec4<f32>(x2.w), t3_1, c2_1);
        c3_0 = fma(vec4<f32>(x3.x), t0_0, c3_0); c3_1 = fma(vec4<f32>(x3.x), t0_1, c3_1);
        c3_0 = fma(vec4<f32>(x3.y), t1_0, c3_0); c3_1 = fma(vec4<f32>(x3.y), t1_1, c3_1);
        c3_0 = fma(vec4<f32>(x3.z), t2_0, c3_0); c3_1 = fma(vec4<f32>(x3.z), t2_1, c3_1);
        c3_0 = fma(vec4<f32>(x3.w), t3_0, c3_0); c3_1 = fma(vec4<f32>(x3.w), t3_1, c3_1);
        c4_0 = fma(vec4<f32>(x4.x), t0_0, c4_0); c4_1 = fma(vec4<f32>(x4.x), t0_1, c4_1);
        c4_0 = fma(vec4<f32>(x4.y), t1_0, c4_0); c4_1 = fma(vec4<f32>(x4.y), t1_1, c4_1);
        c4_0 = fma(vec4<f32>(x4.z), t2_0, c4_0); c4_1 = fma(vec4<f32>(x4.z), t2_1, c4_1);
        c4_0 = fma(vec4<f32>(x4.w), t3_0, c4_0); c4_1 = fma(vec4<f32>(x4.w), t3_1, c4_1);
        c5_0 = fma(vec4<f32>(x5.x), t0_0, c5_0); c5_1 = fma(vec4<f32>(x5.x), t0_1, c5_1);
        c5_0 = fma(vec4<f32>(x5.y), t1_0, c5_0); c5_1 = fma(vec4<f32>(x5.y), t1_1, c5_1);
        c5_0 = fma(vec4<f32>(x5.z), t2_0, c5_0); c5_1 = fma(vec4<f32>(x5.z), t2_1, c5_1);
        c5_0 = fma(vec4<f32>(x5.w), t3_0, c5_0); c5_1 = fma(vec4<f32>(x5.w), t3_1, c5_1);
        c6_0 = fma(vec4<f32>(x6.x), t0_0, c6_0); c6_1 = fma(vec4<f32>(x6.x), t0_1, c6_1);
        c6_0 = fma(vec4<f32>(x6.y), t1_0, c6_0); c6_1 = fma(vec4<f32>(x6.y), t1_1, c6_1);
        c6_0 = fma(vec4<f32>(x6.z), t2_0, c6_0); c6_1 = fma(vec4<f32>(x6.z), t2_1, c6_1);
        c6_0 = fma(vec4<f32>(x6.w), t3_0, c6_0); c6_1 = fma(vec4<f32>(x6.w), t3_1, c6_1);
        c7_0 = fma(vec4<f32>(x7.x), t0_0, c7_0); c7_1 = fma(vec4<f32>(x7.x), t0_1, c7_1);
        c7_0 = fma(vec4<f32>(x7.y), t1_0, c7_0); c7_1 = fma(vec4<f32>(x7.y), t1_1, c7_1);
        c7_0 = fma(vec4<f32>(x7.z), t2_0, c7_0); c7_1 = fma(vec4<f32>(x7.z), t2_1, c7_1);
        c7_0 = fma(vec4<f32>(x7.w), t3_0, c7_0); c7_1 = fma(vec4<f32>(x7.w), t3_1, c7_1);
      }
    } else {
      let n0 = min(n, N - 4u) / 4u;
      let n1 = min(n + 4u, N - 4u) / 4u;
      for (var k = 0u; k < K / 4u; k++) {
        let t0_0 = vec4<f32>(b[(4u * k + 0u) * (LDB / 4u) + n0]);
        let t0_1 = vec4<f32>(b[(4u * k + 0u) * (LDB / 4u) + n1]);
        let t1_0 = vec4<f32>(b[(4u * k + 1u) * (LDB / 4u) + n0]);
        let t1_1 = vec4<f32>(b[(4u * k + 1u) * (LDB / 4u) + n1]);
        let t2_0 = vec4<f32>(b[(4u * k + 2u) * (LDB / 4u) + n0]);
        let t2_1 = vec4<f32>(b[(4u * k + 2u) * (LDB / 4u) + n1]);
        let t3_0 = vec4<f32>(b[(4u * k + 3u) * (LDB / 4u) + n0]);
        let t3_1 = vec4<f32>(b[(4u * k + 3u) * (LDB / 4u) + n1]);
        let x0 = vec4<f32>(a[a0 + k]);
        let x1 = vec4<f32>(a[a1 + k]);
        let x2 = vec4<f32>(a[a2 + k]);
        let x3 = vec4<f32>(a[a3 + k]);
        let x4 = vec4<f32>(a[a4 + k]);
        let x5 = vec4<f32>(a[a5 + k]);
        let x6 = vec4<f32>(a[a6 + k]);
        let x7 = vec4<f32>(a[a7 + k]);
        c0_0 = fma(vec4<f32>(x0.x), t0_0, c0_0); c0_1 = fma(vec4<f32>(x0.x), t0_1, c0_1);
        c0_0 = fma(vec4<f32>(x0.y), t1_0, c0_0); c0_1 = fma(vec4<f32>(x0.y), t1_1, c0_1);
        c0_0 = fma(vec4<f32>(x0.z), t2_0, c0_0); c0_1 = fma(vec4<f32>(x0.z), t2_1, c0_1);
        c0_0 = fma(vec4<f32>(x0.w), t3_0, c0_0); c0_1 = fma(vec4<f32>(x0.w), t3_1, c0_1);
        c1_0 = fma(vec4<f32>(x1.x), t0_0, c1_0); c1_1 = fma(vec4<f32>(x1.x), t0_1, c1_1);
        c1_0 = fma(vec4<f32>(x1.y), t1_0, c1_0); c1_1 = fma(vec4<f32>(x1.y), t1_1, c1_1);
        c1_0 = fma(vec4<f32>(x1.z), t2_0, c1_0); c1_1 = fma(vec4<f32>(x1.z), t2_1, c1_1);
        c1_0 = fma(vec4<f32>(x1.w), t3_0, c1_0); c1_1 = fma(vec4<f32>(x1.w), t3_1, c1_1);
        c2_0 = fma(vec4<f32>(x2.x), t0_0, c2_0); c2_1 = fma(vec4<f32>(x2.x), t0_1, c2_1);
        c2_0 = fma(vec4<f32>(x2.y), t1_0, c2_0); c2_1 = fma(vec4<f32>(x2.y), t1_1, c2_1);
        c2_0 = fma(vec4<f32>(x2.z), t2_0, c2_0); c2_1 = fma(vec4<f32>(x2.z), t2_1, c2_1);
        c2_0 = fma(vec4<f32>(x2.w), t3_0, c2_0); c2_1 = fma(vec4<f32>(x2.w), t3_1, c2_1);
        c3_0 = fma(vec4<f32>(x3.x), t0_0, c3_0); c3_1 = fma(vec4<f32>(x3.x), t0_1, c3_1);
        c3_0 = fma(vec4<f32>(x3.y), t1_0, c3_0); c3_1 = fma(vec4<f32>(x3.y), t1_1, c3_1);
        c3_0 = fma(vec4<f32>(x3.z), t2_0, c3_0); c3_1 = fma(vec4<f32>(x3.z), t2_1, c3_1);
        c3_0 = fma(vec4<f32>(x3.w), t3_0, c3_0); c3_1 = fma(vec4<f32>(x3.w), t3_1, c3_1);
        c4_0 = fma(vec4<f32>(x4.x), t0_0, c4_0); c4_1 = fma(vec4<f32>(x4.x), t0_1, c4_1);
        c4_0 = fma(vec4<f32>(x4.y), t1_0, c4_0); c4_1 = fma(vec4<f32>(x4.y), t1_1, c4_1);
        c4_0 = fma(vec4<f32>(x4.z), t2_0, c4_0); c4_1 = fma(vec4<f32>(x4.z), t2_1, c4_1);
        c4_0 = fma(vec4<f32>(x4.w), t3_0, c4_0); c4_1 = fma(vec4<f32>(x4.w), t3_1, c4_1);
        c5_0 = fma(vec4<f32>(x5.x), t0_0, c5_0); c5_1 = fma(vec4<f32>(x5.x), t0_1, c5_1);
        c5_0 = fma(vec4<f32>(x5.y), t1_0, c5_0); c5_1 = fma(vec4<f32>(x5.y), t1_1, c5_1);
        c5_0 = fma(vec4<f32>(x5.z), t2_0, c5_0); c5_1 = fma(vec4<f32>(x5.z), t2_1, c5_1);
        c5_0 = fma(vec4<f32>(x5.w), t3_0, c5_0); c5_1 = fma(vec4<f32>(x5.w), t3_1, c5_1);
        c6_0 = fma(vec4<f32>(x6.x), t0_0, c6_0); c6_1 = fma(vec4<f32>(x6.x), t0_1, c6_1);
        c6_0 = fma(vec4<f32>(x6.y), t1_0, c6_0); c6_1 = fma(vec4<f32>(x6.y), t1_1, c6_1);
        c6_0 = fma(vec4<f32>(x6.z), t2_0, c6_0); c6_1 = fma(vec4<f32>(x6.z), t2_1, c6_1);
        c6_0 = fma(vec4<f32>(x6.w), t3_0, c6_0); c6_1 = fma(vec4<f32>(x6.w), t3_1, c6_1);
        c7_0 = fma(vec4<f32>(x7.x), t0_0, c7_0); c7_1 = fma(vec4<f32>(x7.x), t0_1, c7_1);
        c7_0 = fma(vec4<f32>(x7.y), t1_0, c7_0); c7_1 = fma(vec4<f32>(x7.y), t1_1, c7_1);
        c7_0 = fma(vec4<f32>(x7.z), t2_0, c7_0); c7_1 = fma(vec4<f32>(x7.z), t2_1, c7_1);
        c7_0 = fma(vec4<f32>(x7.w), t3_0, c7_0); c7_1 = fma(vec4<f32>(x7.w), t3_1, c7_1);
      }
    }
  }
  var c = array<vec4<f32>, 16>(
    c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1, c5_0, c5_1, c6_0, c6_1, c7_0, c7_1,
  );
  for (var i = 0u; i < 16u; i++) {
    store(m + i / 2u, n + 4u * (i % 2u), c[i]);
  }
}

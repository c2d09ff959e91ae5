// out[M, N] = op(a) · op(b), with the epilogue of matmul.wgsl. For GPUs: a workgroup of 128 threads makes a tile
// of 64×128 outputs, 8×8 a thread, from tiles of 16 of the K in workgroup memory; while it works on one, the
// next is on its way into registers.
//
// Reads and writes four numbers at a time, under the conditions of matmul_direct.wgsl. Rows and columns beyond
// the edge come from clamped addresses and are not stored; what lies beyond K counts as 0.
//
// If PART is less than K, the workgroups of grid z make the product over columns z·PART .. z·PART+PART-1 of
// op(a) alone, into a matrix of their own behind the others': out [ceil(K / PART), M, N], to be added up. PART
// is a multiple of 16 then, and there is no epilogue. So small outputs of long sums keep a GPU busy, too.
//
// Constants: as matmul.wgsl

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> aux: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> extra: array<vec4<f32>>;

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

fn store(part: u32, m: u32, n: u32, value: vec4<f32>) {
  if (m >= M || n >= N) {
    return;
  }
  let i = ((part * M + m) * LDO + n) / 4u;
  var s = value;
  if (BIAS) {
    s += bias[n / 4u];
  }
  if (GELU) {
    extra[i] = s;
    s = gelu(s);
  }
  if (GELU_BACKWARD) {
    s *= gelu_backward(aux[i]);
  }
  if (RESIDUAL) {
    s += aux[i];
  }
  if (ADD) {
    s += out[i];
  }
  out[i] = s;
}

const TILE_M = 64u;
const TILE_N = 128u;
const TILE_K = 16u;
const BAND = 8u;  // rows of tiles that are worked on together, so that their operands stay in the cache

var<workgroup> tile_a: array<vec4<f32>, 256>;  // [TILE_K][TILE_M / 4], whichever way a is stored
var<workgroup> tile_b: array<vec4<f32>, 512>;  // [TILE_K][TILE_N / 4]

// Four numbers of op(a): of row m from column k on, or if TRANSPOSE_A of column k from row m on.
fn load_a(m: u32, k: u32) -> vec4<f32> {
  if (K % TILE_K != 0u && k >= K) {
    return vec4<f32>();
  }
  if (TRANSPOSE_A) {
    return a[(k * LDA + min(m, M - 4u)) / 4u];
  }
  return a[(min(m, M - 1u) * LDA + k) / 4u];
}

// Four numbers of op(b): of row k from column n on, or if TRANSPOSE_B of column n from row k on.
fn load_b(k: u32, n: u32) -> vec4<f32> {
  if (K % TILE_K != 0u && k >= K) {
    return vec4<f32>();
  }
  if (TRANSPOSE_B) {
    return b[(min(n, N - 1u) * LDB + k) / 4u];
  }
  return b[(k * LDB + min(n, N - 4u)) / 4u];
}

// The vector number i of a tile of a that starts at row m and column k: threads next to each other read
// vectors next to each other.
fn vector_of_a(i: u32, m: u32, k: u32) -> vec4<f32> {
  if (TRANSPOSE_A) {
    return load_a(m + i % 16u * 4u, k + i / 16u);
  }
  return load_a(m + i / 4u, k + i % 4u * 4u);
}

fn vector_of_b(i: u32, k: u32, n: u32) -> vec4<f32> {
  if (TRANSPOSE_B) {
    return load_b(k + i % 4u * 4u, n + i / 4u);
  }
  return load_b(k + i / 32u, n + i % 32u * 4u);
}

fn keep_a(i: u32, v: vec4<f32>) {
  if (TRANSPOSE_A) {
    tile_a[i] = v;
  } else {
    let to = i % 4u * 64u + i / 16u;
    tile_a[to][i / 4u % 4u] = v.x;
    tile_a[to + 16u][i / 4u % 4u] = v.y;
    tile_a[to + 32u][i / 4u % 4u] = v.z;
    tile_a[to + 48u][i / 4u % 4u] = v.w;
  }
}

fn keep_b(i: u32, v: vec4<f32>) {
  if (TRANSPOSE_B) {
    let to = i % 4u * 128u + i / 16u;
    tile_b[to][i / 4u % 4u] = v.x;
    tile_b[to + 32u][i / 4u % 4u] = v.y;
    tile_b[to + 64u][i / 4u % 4u] = v.z;
    tile_b[to + 96u][i / 4u % 4u] = v.w;
  } else {
    tile_b[i] = v;
  }
}

@compute @workgroup_size(128)
fn multiply(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  const ROWS = (M + TILE_M - 1u) / TILE_M;
  const COLUMNS = (N + TILE_N - 1u) / TILE_N;
  let number = group.y * COLUMNS + group.x;
  let band = number / (BAND * COLUMNS) * BAND;
  let height = min(ROWS - band, BAND);
  let within = number % (BAND * COLUMNS);
  let tile_row = (band + within % height) * TILE_M;
  let tile_column = within / height * TILE_N;

  // c<row>_<half>: four outputs each. Rows m .. m+3 and m+32 .. m+35, columns n .. n+3 and n+64 .. n+67
  let m = tile_row + lane / 16u * 4u;
  let n = tile_column + lane % 16u * 4u;
  var c0_0 = vec4<f32>(); var c0_1 = vec4<f32>();
  var c1_0 = vec4<f32>(); var c1_1 = vec4<f32>();
  var c2_0 = vec4<f32>(); var c2_1 = vec4<f32>();
  var c3_0 = vec4<f32>(); var c3_1 = vec4<f32>();
  var c4_0 = vec4<f32>(); var c4_1 = vec4<f32>();
  var c5_0 = vec4<f32>(); var c5_1 = vec4<f32>();
  var c6_0 = vec4<f32>(); var c6_1 = vec4<f32>();
  var c7_0 = vec4<f32>(); var c7_1 = vec4<f32>();

  let start = group.z * PART;
  let end = min(K, start + PART);
  var a0 = vector_of_a(lane, tile_row, start);
  var a1 = vector_of_a(lane + 128u, tile_row, start);
  var b0 = vector_of_b(lane, start, tile_column);
  var b1 = vector_of_b(lane + 128u, start, tile_column);
  var b2 = vector_of_b(lane + 256u, start, tile_column);
  var b3 = vector_of_b(lane + 384u, start, tile_column);
  for (var k = start; k < end; k += TILE_K) {
    workgroupBarrier();
    keep_a(lane, a0);
    keep_a(lane + 128u, a1);
    keep_b(lane, b0);
    keep_b(lane + 128u, b1);
    keep_b(lane + 256u, b2);
    keep_b(lane + 384u, b3);
    workgroupBarrier();
    let next = k + TILE_K;
    if (next < end) {
      a0 = vector_of_a(lane, tile_row, next);
      a1 = vector_of_a(lane + 128u, tile_row, next);
      b0 = vector_of_b(lane, next, tile_column);
      b1 = vector_of_b(lane + 128u, next, tile_column);
      b2 = vector_of_b(lane + 256u, next, tile_column);
      b3 = vector_of_b(lane + 384u, next, tile_column);
    }
    for (var i = 0u; i < TILE_K; i++) {
      let x0 = tile_a[i * 16u + lane / 16u];
      let x1 = tile_a[i * 16u + lane / 16u + 8u];
      let y0 = tile_b[i * 32u + lane % 16u];
      let y1 = tile_b[i * 32u + lane % 16u + 16u];
      c0_0 = fma(vec4<f32>(x0.x), y0, c0_0); c0_1 = fma(vec4<f32>(x0.x), y1, c0_1);
      c1_0 = fma(vec4<f32>(x0.y), y0, c1_0); c1_1 = fma(vec4<f32>(x0.y), y1, c1_1);
      c2_0 = fma(vec4<f32>(x0.z), y0, c2_0); c2_1 = fma(vec4<f32>(x0.z), y1, c2_1);
      c3_0 = fma(vec4<f32>(x0.w), y0, c3_0); c3_1 = fma(vec4<f32>(x0.w), y1, c3_1);
      c4_0 = fma(vec4<f32>(x1.x), y0, c4_0); c4_1 = fma(vec4<f32>(x1.x), y1, c4_1);
      c5_0 = fma(vec4<f32>(x1.y), y0, c5_0); c5_1 = fma(vec4<f32>(x1.y), y1, c5_1);
      c6_0 = fma(vec4<f32>(x1.z), y0, c6_0); c6_1 = fma(vec4<f32>(x1.z), y1, c6_1);
      c7_0 = fma(vec4<f32>(x1.w), y0, c7_0); c7_1 = fma(vec4<f32>(x1.w), y1, c7_1);
    }
  }
  store(group.z, m + 0u, n, c0_0); store(group.z, m + 0u, n + 64u, c0_1);
  store(group.z, m + 1u, n, c1_0); store(group.z, m + 1u, n + 64u, c1_1);
  store(group.z, m + 2u, n, c2_0); store(group.z, m + 2u, n + 64u, c2_1);
  store(group.z, m + 3u, n, c3_0); store(group.z, m + 3u, n + 64u, c3_1);
  store(group.z, m + 32u, n, c4_0); store(group.z, m + 32u, n + 64u, c4_1);
  store(group.z, m + 33u, n, c5_0); store(group.z, m + 33u, n + 64u, c5_1);
  store(group.z, m + 34u, n, c6_0); store(group.z, m + 34u, n + 64u, c6_1);
  store(group.z, m + 35u, n, c7_0); store(group.z, m + 35u, n + 64u, c7_1);
}

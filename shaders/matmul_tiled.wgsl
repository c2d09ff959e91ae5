// out[M, N] = op(a) · op(b), with the epilogue of matmul.wgsl. For GPUs: a workgroup makes a tile of 128×TILE_N
// outputs, 8×8 a thread, from slices of 8 columns of op(a) and 8 rows of op(b) in workgroup memory. Two slices
// take turns: while one is multiplied, the next is on its way into registers and then into the other. Tiles of
// 128×128 are the faster ones on an H100, those of 128×64 leave fewer of its processors idle on small outputs.
//
// What made it fast there: the products written out (as a loop they take 1.4 times as long), slices at fixed
// addresses, loads without a branch around them, subgroups of 32 that cover 4×8 of the threads (each read of a
// slice is then one access), and vectors swapped in the last four of a slice's eight rows, so that the
// transposing stores of neighbours meet different banks.
//
// Reads and writes four numbers at a time, under the conditions of matmul_direct.wgsl. Rows and columns beyond
// the edge come from clamped addresses and are not stored; what lies beyond K counts as 0.
//
// If PART is less than K, the workgroups of grid z make the product over columns z·PART .. z·PART+PART-1 of
// op(a) alone, into a matrix of their own behind the others': out [ceil(K / PART), M, N], to be added up. PART
// is a multiple of 16 then, and there is no epilogue. So small outputs of long sums keep a GPU busy, too.
//
// Constants: as matmul.wgsl, with TILE_N 64 or 128

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

const TILE_M = 128u;
const TILE_K = 8u;
const THREADS = 2u * TILE_N;  // so each keeps one vector of a slice of b, and one or two of a
const BAND = 8u;  // rows of tiles that are worked on together, so that their operands stay in the cache

// Vectors of four in a row of a slice, which has one k, and in a slice
const ROW_A = TILE_M / 4u;
const ROW_B = TILE_N / 4u;
const SLICE_A = TILE_K * ROW_A;
const SLICE_B = TILE_K * ROW_B;

// [2][TILE_K][ROW_A or ROW_B], whichever way a and b are stored; vector v of row k is at v ^ (k / 4 · 4)
var<workgroup> slices_a: array<vec4<f32>, 2u * SLICE_A>;
var<workgroup> slices_b: array<vec4<f32>, 2u * SLICE_B>;

alias Tile = array<vec4<f32>, 16>;  // 8×8 outputs: element 2·row + half

// The i-th vector of the slice of op(a) that starts at row m and column k; neighbours read neighbours.
fn load_a(i: u32, m: u32, k: u32) -> vec4<f32> {
  var at = k + i % 2u * 4u;
  var from_a = min(m + i / 2u, M - 1u) * LDA + min(at, max(K, 4u) - 4u);
  if (TRANSPOSE_A) {
    at = k + i / ROW_A;
    from_a = min(at, K - 1u) * LDA + min(m + i % ROW_A * 4u, M - 4u);
  }
  let v = vec4<f32>(a[from_a / 4u]);
  if (K % (2u * TILE_K) != 0u) {
    return select(vec4<f32>(), v, at < K);
  }
  return v;
}

fn load_b(i: u32, k: u32, n: u32) -> vec4<f32> {
  var at = k + i / ROW_B;
  var from_b = min(at, K - 1u) * LDB + min(n + i % ROW_B * 4u, N - 4u);
  if (TRANSPOSE_B) {
    at = k + i % 2u * 4u;
    from_b = min(n + i / 2u, N - 1u) * LDB + min(at, max(K, 4u) - 4u);
  }
  let v = vec4<f32>(b[from_b / 4u]);
  if (K % (2u * TILE_K) != 0u) {
    return select(vec4<f32>(), v, at < K);
  }
  return v;
}

// Puts what load_a brought into a slice.
fn keep_a(slice: u32, i: u32, v: vec4<f32>) {
  if (TRANSPOSE_A) {
    let k = i / ROW_A;
    slices_a[slice + k * ROW_A + ((i % ROW_A) ^ (k / 4u * 4u))] = v;
  } else {
    let half = i % 2u;  // of the eight k
    let to = slice + half * 4u * ROW_A + ((i / 8u) ^ (half * 4u));
    slices_a[to][i / 2u % 4u] = v.x;
    slices_a[to + ROW_A][i / 2u % 4u] = v.y;
    slices_a[to + 2u * ROW_A][i / 2u % 4u] = v.z;
    slices_a[to + 3u * ROW_A][i / 2u % 4u] = v.w;
  }
}

fn keep_b(slice: u32, i: u32, v: vec4<f32>) {
  if (TRANSPOSE_B) {
    let half = i % 2u;
    let to = slice + half * 4u * ROW_B + ((i / 8u) ^ (half * 4u));
    slices_b[to][i / 2u % 4u] = v.x;
    slices_b[to + ROW_B][i / 2u % 4u] = v.y;
    slices_b[to + 2u * ROW_B][i / 2u % 4u] = v.z;
    slices_b[to + 3u * ROW_B][i / 2u % 4u] = v.w;
  } else {
    let k = i / ROW_B;
    slices_b[slice + k * ROW_B + ((i % ROW_B) ^ (k / 4u * 4u))] = v;
  }
}

// What a thread brings of a beyond its first vector, where there are fewer threads than vectors
fn load_more_a(lane: u32, m: u32, k: u32) -> vec4<f32> {
  if (THREADS < SLICE_A) {
    return load_a(lane + THREADS, m, k);
  }
  return vec4<f32>();
}

fn keep_more_a(slice: u32, lane: u32, v: vec4<f32>) {
  if (THREADS < SLICE_A) {
    keep_a(slice, lane + THREADS, v);
  }
}

// c += the column of 8 at `at_a` times the row of 8 at `at_b`
fn outer(c: ptr<function, Tile>, at_a: u32, at_b: u32) {
  let x0 = slices_a[at_a];
  let x1 = slices_a[at_a + TILE_M / 8u];
  let y0 = slices_b[at_b];
  let y1 = slices_b[at_b + TILE_N / 8u];
  (*c)[0] = fma(vec4<f32>(x0.x), y0, (*c)[0]);
  (*c)[1] = fma(vec4<f32>(x0.x), y1, (*c)[1]);
  (*c)[2] = fma(vec4<f32>(x0.y), y0, (*c)[2]);
  (*c)[3] = fma(vec4<f32>(x0.y), y1, (*c)[3]);
  (*c)[4] = fma(vec4<f32>(x0.z), y0, (*c)[4]);
  (*c)[5] = fma(vec4<f32>(x0.z), y1, (*c)[5]);
  (*c)[6] = fma(vec4<f32>(x0.w), y0, (*c)[6]);
  (*c)[7] = fma(vec4<f32>(x0.w), y1, (*c)[7]);
  (*c)[8] = fma(vec4<f32>(x1.x), y0, (*c)[8]);
  (*c)[9] = fma(vec4<f32>(x1.x), y1, (*c)[9]);
  (*c)[10] = fma(vec4<f32>(x1.y), y0, (*c)[10]);
  (*c)[11] = fma(vec4<f32>(x1.y), y1, (*c)[11]);
  (*c)[12] = fma(vec4<f32>(x1.z), y0, (*c)[12]);
  (*c)[13] = fma(vec4<f32>(x1.z), y1, (*c)[13]);
  (*c)[14] = fma(vec4<f32>(x1.w), y0, (*c)[14]);
  (*c)[15] = fma(vec4<f32>(x1.w), y1, (*c)[15]);
}

// c += the thread's rows of a slice of a times its columns of one of b; y and x are its first vectors' numbers.
fn multiply_slices(c: ptr<function, Tile>, slice: u32, y: u32, x: u32) {
  let at_a = slice * SLICE_A + y;
  let at_b = slice * SLICE_B + x;
  outer(c, at_a, at_b);
  outer(c, at_a + ROW_A, at_b + ROW_B);
  outer(c, at_a + 2u * ROW_A, at_b + 2u * ROW_B);
  outer(c, at_a + 3u * ROW_A, at_b + 3u * ROW_B);
  let swapped_a = slice * SLICE_A + (y ^ 4u);
  let swapped_b = slice * SLICE_B + (x ^ 4u);
  outer(c, swapped_a + 4u * ROW_A, swapped_b + 4u * ROW_B);
  outer(c, swapped_a + 5u * ROW_A, swapped_b + 5u * ROW_B);
  outer(c, swapped_a + 6u * ROW_A, swapped_b + 6u * ROW_B);
  outer(c, swapped_a + 7u * ROW_A, swapped_b + 7u * ROW_B);
}

@compute @workgroup_size(THREADS)
fn multiply(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  const ROWS = (M + TILE_M - 1u) / TILE_M;
  const COLUMNS = (N + TILE_N - 1u) / TILE_N;
  let number = group.y * COLUMNS + group.x;
  let band = number / (BAND * COLUMNS) * BAND;
  let height = min(ROWS - band, BAND);
  let within = number % (BAND * COLUMNS);
  let tile_row = (band + within % height) * TILE_M;
  let tile_column = within / height * TILE_N;

  // Of the 16×(TILE_N / 8) threads, a subgroup of 32 has four rows and eight columns.
  const ACROSS = TILE_N / 64u;  // subgroups beside each other
  let y = lane / 32u / ACROSS * 4u + lane % 32u / 8u;
  let x = lane / 32u % ACROSS * 8u + lane % 8u;

  var c = Tile();
  let start = group.z * PART;
  let end = min(K, start + PART);
  keep_a(0u, lane, load_a(lane, tile_row, start));
  keep_more_a(0u, lane, load_more_a(lane, tile_row, start));
  keep_b(0u, lane, load_b(lane, start, tile_column));
  workgroupBarrier();
  for (var k = start; k < end; k += 2u * TILE_K) {
    {
      let a0 = load_a(lane, tile_row, k + TILE_K);
      let a1 = load_more_a(lane, tile_row, k + TILE_K);
      let b0 = load_b(lane, k + TILE_K, tile_column);
      multiply_slices(&c, 0u, y, x);
      keep_a(SLICE_A, lane, a0);
      keep_more_a(SLICE_A, lane, a1);
      keep_b(SLICE_B, lane, b0);
    }
    workgroupBarrier();
    {
      let a0 = load_a(lane, tile_row, k + 2u * TILE_K);
      let a1 = load_more_a(lane, tile_row, k + 2u * TILE_K);
      let b0 = load_b(lane, k + 2u * TILE_K, tile_column);
      multiply_slices(&c, 1u, y, x);
      keep_a(0u, lane, a0);
      keep_more_a(0u, lane, a1);
      keep_b(0u, lane, b0);
    }
    workgroupBarrier();
  }
  // Rows m .. m+3 and m+64 .. m+67, columns n .. n+3 and half a tile further
  let m = tile_row + y * 4u;
  let n = tile_column + x * 4u;
  const HALF = TILE_N / 2u;
  store(group.z, m + 0u, n, c[0]);
  store(group.z, m + 0u, n + HALF, c[1]);
  store(group.z, m + 1u, n, c[2]);
  store(group.z, m + 1u, n + HALF, c[3]);
  store(group.z, m + 2u, n, c[4]);
  store(group.z, m + 2u, n + HALF, c[5]);
  store(group.z, m + 3u, n, c[6]);
  store(group.z, m + 3u, n + HALF, c[7]);
  store(group.z, m + 64u, n, c[8]);
  store(group.z, m + 64u, n + HALF, c[9]);
  store(group.z, m + 65u, n, c[10]);
  store(group.z, m + 65u, n + HALF, c[11]);
  store(group.z, m + 66u, n, c[12]);
  store(group.z, m + 66u, n + HALF, c[13]);
  store(group.z, m + 67u, n, c[14]);
  store(group.z, m + 67u, n + HALF, c[15]);
}

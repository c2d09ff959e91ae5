// out[M, N] = op(a) · op(b), with the epilogue of matmul.wgsl. For GPUs: a workgroup makes a tile of TILE_M×TILE_N
// outputs, 8×8 a thread (8×12 where TILE_N is 192), from slices of 8 columns of op(a) and 8 rows of
// op(b) in workgroup memory. Two slices take turns: while one is multiplied, the next is on its way into registers
// and then into the other. Tiles of 128×128 are the faster ones on an H100; others leave fewer of its processors
// idle on small outputs.
//
// What made it fast there: the products written out (as a loop they take 1.4 times as long), in an order in which
// each shares a factor with the one before it (4%), slices at fixed addresses, loads without a branch around them,
// stores under the last of a slice's products (1%), subgroups of 32 that cover 4×8 of the threads (each read of a
// slice is then one access), vectors swapped in the last four of a slice's eight rows, so that the transposing
// stores of neighbours meet different banks, and no clamp where nothing lies beyond an edge, so that addresses
// grow by the same step from slice to slice. A turn of the loop multiplies two slices, whose addresses are fixed then
// (6%); but of short sums it multiplies one, since these take about as long as their code takes to come from memory.
//
// Reads and writes four numbers at a time, under the conditions of matmul_direct.wgsl. Rows and columns beyond
// the edge come from clamped addresses and are not stored; what lies beyond K counts as 0.
//
// If PART is less than K, the workgroups of grid z make the product over columns z·PART .. z·PART+PART-1 of
// op(a) alone, into a matrix of their own behind the others': out [ceil(K / PART), M, N], to be added up. PART
// is a multiple of 16 then; of the epilogue there are bias and residual at most, which the first part adds. So
// small outputs of long sums keep a GPU busy, too.
//
// Constants: as matmul.wgsl, with TILE_M 64 or 128, and TILE_N 64, 128 or 192

@group(0) @binding(0) var<storage, read> a: array<vec4<a_type>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<b_type>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> aux: array<vec4<aux_type>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<out_type>>;
@group(0) @binding(5) var<storage, read_write> extra: array<vec4<extra_type>>;

const SQRT_2_OVER_PI = 0.7978845608028654;

// (1 + tanh(u)) / 2 for GELU's u, by one exponential, whose argument is kept from overflowing
fn gate(x: vec4<f32>) -> vec4<f32> {
  let u = SQRT_2_OVER_PI * (x + 0.044715 * x * x * x);
  return 1.0 / (1.0 + exp(clamp(-2.0 * u, vec4<f32>(-80.0), vec4<f32>(80.0))));
}

fn gelu(x: vec4<f32>) -> vec4<f32> {
  return x * gate(x);
}

fn gelu_backward(x: vec4<f32>) -> vec4<f32> {
  let g = gate(x);
  return g + 2.0 * x * g * (1.0 - g) * SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x * x);
}

// What the epilogue adds or multiplies with at an output
struct Operands {
  aux: vec4<f32>,
  old: vec4<f32>,
}

// Whether a part of the sum is the one that bias and residual are added to
fn first_part(part: u32) -> bool {
  return PART >= K || part == 0u;
}

fn operands(part: u32, i: u32) -> Operands {
  var r: Operands;
  if ((RESIDUAL || GELU_BACKWARD) && first_part(part)) {
    r.aux = vec4<f32>(aux[i]);
  }
  if (ADD) {
    r.old = vec4<f32>(out[i]);
  }
  return r;
}

fn store(part: u32, m: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) {
  if ((M % TILE_M != 0u && m >= M) || (N % TILE_N != 0u && n >= N)) {
    return;
  }
  var s = value;
  if (BIAS && first_part(part)) {
    s += bias[n / 4u];
  }
  if (GELU) {
    extra[i] = vec4<extra_type>(s);
    s = gelu(s);
  }
  if (GELU_BACKWARD) {
    s *= gelu_backward(r.aux);
  }
  if (RESIDUAL) {
    s += r.aux;
  }
  if (ADD) {
    s += r.old;
  }
  out[i] = vec4<out_type>(s);
}

// Stores four columns of four rows, of which c1 and c3 are upside down, from row m and column n on. What the epilogue
// reads is asked for first, so that all of it takes as long as one.
fn store_block(part: u32, m: u32, n: u32, c0: vec4<f32>, c1: vec4<f32>, c2: vec4<f32>, c3: vec4<f32>) {
  let rows = m + vec4<u32>(0u, 1u, 2u, 3u);
  let column = inside(n / 4u, N / 4u, N % TILE_N == 0u);
  let i = (part * M + select(min(rows, vec4<u32>(M - 1u)), rows, M % TILE_M == 0u)) * (LDO / 4u) + column;
  let r0 = operands(part, i.x);
  let r1 = operands(part, i.y);
  let r2 = operands(part, i.z);
  let r3 = operands(part, i.w);
  store(part, rows.x, n, i.x, vec4<f32>(c0.x, c1.w, c2.x, c3.w), r0);
  store(part, rows.y, n, i.y, vec4<f32>(c0.y, c1.z, c2.y, c3.z), r1);
  store(part, rows.z, n, i.z, vec4<f32>(c0.z, c1.y, c2.z, c3.y), r2);
  store(part, rows.w, n, i.w, vec4<f32>(c0.w, c1.x, c2.w, c3.x), r3);
}

const TILE_K = 8u;
const BLOCKS = select(2u, 3u, TILE_N == 192u);  // of 4×4 outputs that a thread has beside each other
const THREADS = TILE_M * TILE_N / (32u * BLOCKS);
const WHOLE_K = K % (2u * TILE_K) == 0u;  // nothing is read beyond it
const SHORT = PART <= 128u;  // whether a sum is made of few slices
const BAND = 8u;  // rows of tiles that are worked on together, so that their operands stay in the cache

// Vectors of four in a row of a slice, which has one k, and in a slice
const ROW_A = TILE_M / 4u;
const ROW_B = TILE_N / 4u;
const SLICE_A = TILE_K * ROW_A;
const SLICE_B = TILE_K * ROW_B;

// [2][TILE_K][ROW_A or ROW_B], whichever way a and b are stored; vector v of row k is at v ^ (k / 4 · 4)
var<workgroup> slices_a: array<vec4<f32>, 2u * SLICE_A>;
var<workgroup> slices_b: array<vec4<f32>, 2u * SLICE_B>;

// A thread's outputs: element 2·column + half has four rows of a column, the last one first in odd columns
alias Tile = array<vec4<f32>, 24>;

// i, or the last of `count` where it may lie beyond; `whole` says that it cannot
fn inside(i: u32, count: u32, whole: bool) -> u32 {
  return select(min(i, max(count, 1u) - 1u), i, whole);
}

// What was read for number `inner` of a sum: 0 beyond K
fn summed(v: vec4<f32>, inner: u32) -> vec4<f32> {
  return select(vec4<f32>(), v, WHOLE_K || inner < K);
}

// The i-th vector of the slice of op(a) that starts at row m and column 4k; neighbours read neighbours.
fn load_a(i: u32, m: u32, k: u32) -> vec4<f32> {
  if (TRANSPOSE_A) {
    let inner = 4u * k + i / ROW_A;
    let column = inside(m / 4u + i % ROW_A, M / 4u, M % TILE_M == 0u);
    return summed(vec4<f32>(a[inside(inner, K, WHOLE_K) * (LDA / 4u) + column]), inner);
  }
  let row = inside(m + i / 2u, M, M % TILE_M == 0u);
  let column = k + i % 2u;
  return summed(vec4<f32>(a[row * (LDA / 4u) + inside(column, K / 4u, WHOLE_K)]), 4u * column);
}

fn load_b(i: u32, k: u32, n: u32) -> vec4<f32> {
  if (TRANSPOSE_B) {
    let row = inside(n + i / 2u, N, N % TILE_N == 0u);
    let column = k + i % 2u;
    return summed(vec4<f32>(b[row * (LDB / 4u) + inside(column, K / 4u, WHOLE_K)]), 4u * column);
  }
  let inner = 4u * k + i / ROW_B;
  let column = inside(n / 4u + i % ROW_B, N / 4u, N % TILE_N == 0u);
  return summed(vec4<f32>(b[inside(inner, K, WHOLE_K) * (LDB / 4u) + column]), inner);
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

// What a thread brings of the next slices: one or two vectors of a, up to three of b
struct Brought {
  a0: vec4<f32>,
  a1: vec4<f32>,
  b0: vec4<f32>,
  b1: vec4<f32>,
  b2: vec4<f32>,
}

// A thread's share of the slices that start at column 4k of op(a), which is row 4k of op(b)
fn bring(lane: u32, m: u32, k: u32, n: u32) -> Brought {
  var r: Brought;
  r.a0 = load_a(lane, m, k);
  if (SLICE_A > THREADS) {
    r.a1 = load_a(lane + THREADS, m, k);
  }
  r.b0 = load_b(lane, k, n);
  if (SLICE_B > THREADS) {
    r.b1 = load_b(lane + THREADS, k, n);
  }
  if (SLICE_B > 2u * THREADS) {
    r.b2 = load_b(lane + 2u * THREADS, k, n);
  }
  return r;
}

fn keep(slice: u32, lane: u32, r: Brought) {
  keep_a(slice * SLICE_A, lane, r.a0);
  if (SLICE_A > THREADS) {
    keep_a(slice * SLICE_A, lane + THREADS, r.a1);
  }
  keep_b(slice * SLICE_B, lane, r.b0);
  if (SLICE_B > THREADS) {
    keep_b(slice * SLICE_B, lane + THREADS, r.b1);
  }
  if (SLICE_B > 2u * THREADS) {
    keep_b(slice * SLICE_B, lane + 2u * THREADS, r.b2);
  }
}

// c += the column of 8 in x0 and x1 times four numbers of a row, for the columns from element i on. Every other
// column goes upwards, so that it begins with what the one before it ended with.
fn four_columns(c: ptr<function, Tile>, i: u32, x0: vec4<f32>, x1: vec4<f32>, y: vec4<f32>) {
  (*c)[i] = fma(x0, vec4<f32>(y.x), (*c)[i]);
  (*c)[i + 1u] = fma(x1, vec4<f32>(y.x), (*c)[i + 1u]);
  (*c)[i + 3u] = fma(x1.wzyx, vec4<f32>(y.y), (*c)[i + 3u]);
  (*c)[i + 2u] = fma(x0.wzyx, vec4<f32>(y.y), (*c)[i + 2u]);
  (*c)[i + 4u] = fma(x0, vec4<f32>(y.z), (*c)[i + 4u]);
  (*c)[i + 5u] = fma(x1, vec4<f32>(y.z), (*c)[i + 5u]);
  (*c)[i + 7u] = fma(x1.wzyx, vec4<f32>(y.w), (*c)[i + 7u]);
  (*c)[i + 6u] = fma(x0.wzyx, vec4<f32>(y.w), (*c)[i + 6u]);
}

// c += the column of 8 at `at_a` times the row of 8 or 12 at `at_b`. All factors are read first: where y2 was read
// later, threads of 8×12 outputs took more registers than three workgroups of 128 have on an H100.
fn outer(c: ptr<function, Tile>, at_a: u32, at_b: u32) {
  let x0 = slices_a[at_a];
  let x1 = slices_a[at_a + TILE_M / 8u];
  let y0 = slices_b[at_b];
  let y1 = slices_b[at_b + ROW_B / BLOCKS];
  var y2: vec4<f32>;
  if (BLOCKS == 3u) {
    y2 = slices_b[at_b + 2u * (ROW_B / BLOCKS)];
  }
  four_columns(c, 0u, x0, x1, y0);
  four_columns(c, 8u, x0, x1, y1);
  if (BLOCKS == 3u) {
    four_columns(c, 16u, x0, x1, y2);
  }
}

// c += the thread's rows of a slice of a times its columns of one of b, but for the last k of eight; y and x are
// its first vectors' numbers.
fn multiply_seven(c: ptr<function, Tile>, slice: u32, y: u32, x: u32) {
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
}

fn multiply_last(c: ptr<function, Tile>, slice: u32, y: u32, x: u32) {
  outer(c, slice * SLICE_A + (y ^ 4u) + 7u * ROW_A, slice * SLICE_B + (x ^ 4u) + 7u * ROW_B);
}

// c += a slice of a times one of b, while the other two are brought, from column 4k of op(a) on, and kept.
fn multiply_slice(c: ptr<function, Tile>, slice: u32, y: u32, x: u32, lane: u32, m: u32, k: u32, n: u32) {
  let next = bring(lane, m, k, n);
  multiply_seven(c, slice, y, x);
  keep(1u - slice, lane, next);
  multiply_last(c, slice, y, x);
  workgroupBarrier();
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

  // Threads lie in TILE_M / 8 rows of ROW_B / BLOCKS; a subgroup of 32 has four rows and eight columns of them.
  const ACROSS = ROW_B / BLOCKS / 8u;  // subgroups beside each other
  let y = lane / 32u / ACROSS * 4u + lane % 32u / 8u;
  let x = lane / 32u % ACROSS * 8u + lane % 8u;

  var c = Tile();
  let start = group.z * (PART / 4u);  // k counts vectors of four
  let end = min((K + 3u) / 4u, start + (PART + 3u) / 4u);
  const STEP = select(TILE_K / 2u, TILE_K / 4u, SHORT);
  let last = start + (end - start - 1u) / STEP * STEP;  // where the last turn starts: its slices are loaded again
  keep(0u, lane, bring(lane, tile_row, start, tile_column));
  workgroupBarrier();
  var slice = 0u;
  for (var k = start; k < end; k += STEP) {
    let next = min(k + STEP, last);
    if (SHORT) {
      multiply_slice(&c, slice, y, x, lane, tile_row, next, tile_column);
      slice = 1u - slice;
    } else {
      multiply_slice(&c, 0u, y, x, lane, tile_row, k + TILE_K / 4u, tile_column);
      multiply_slice(&c, 1u, y, x, lane, tile_row, next, tile_column);
    }
  }
  // A block is rows m .. m+3 and columns n .. n+3; others lie below and to the right of it.
  let m = tile_row + y * 4u;
  let n = tile_column + x * 4u;
  const DOWN = TILE_M / 2u;
  const RIGHT = TILE_N / BLOCKS;
  store_block(group.z, m, n, c[0], c[2], c[4], c[6]);
  store_block(group.z, m, n + RIGHT, c[8], c[10], c[12], c[14]);
  if (BLOCKS == 3u) {
    store_block(group.z, m, n + 2u * RIGHT, c[16], c[18], c[20], c[22]);
  }
  store_block(group.z, m + DOWN, n, c[1], c[3], c[5], c[7]);
  store_block(group.z, m + DOWN, n + RIGHT, c[9], c[11], c[13], c[15]);
  if (BLOCKS == 3u) {
    store_block(group.z, m + DOWN, n + 2u * RIGHT, c[17], c[19], c[21], c[23]);
  }
}

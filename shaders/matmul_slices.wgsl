// What kernels share that make products in tiles, for GPUs: a workgroup makes a tile of TILE_M×TILE_N outputs, 8×8 a
// thread (8×12 where TILE_N is 192), from slices of 8 columns of op(a) and 8 rows of op(b) in workgroup memory. Two
// slices take turns: while one is multiplied, the next is on its way into registers and then into the other.
//
// What made it fast on an H100: the products written out (as a loop they take 1.4 times as long), in an order in which
// each shares a factor with the one before it (4%), slices at fixed addresses, loads without a branch around them,
// stores under the last of a slice's products (1%), subgroups of 32 that cover 4×8 of the threads (each read of a
// slice is then one access), vectors swapped in the last four of a slice's eight rows, so that the transposing
// stores of neighbours meet different banks, and no clamp where nothing lies beyond an edge, so that addresses
// grow by the same step from slice to slice. A turn of the loop multiplies two slices, whose addresses are fixed then
// (6%); but of a SHORT product it multiplies one, since that takes about as long as its code takes to come from memory.
//
// A tile of 64×64 has few threads, which wait for memory and for each other: two teams of them make it, each from half
// of the slices, and add up in the end (SMALL takes 9% less).
//
// A product's own part is in matmul_product.wgsl.
//
// Constants: TILE_M 64 or 128, TILE_N 64, 128 or 192, SHORT

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

const TILE_K = 8u;
const BLOCKS = select(2u, 3u, TILE_N == 192u);  // of 4×4 outputs that a thread has beside each other
const TEAMS = select(1u, 2u, TILE_M * TILE_N == 4096u);
const TEAM = TILE_M * TILE_N / (32u * BLOCKS);  // threads
const THREADS = TEAMS * TEAM;

// Vectors of four in a row of a slice, which has one k, and in a slice
const ROW_A = TILE_M / 4u;
const ROW_B = TILE_N / 4u;
const SLICE_A = TILE_K * ROW_A;
const SLICE_B = TILE_K * ROW_B;

// [TEAMS][2][TILE_K][ROW_A or ROW_B], whichever way a and b are stored; vector v of row k is at v ^ (k / 4 · 4)
var<workgroup> slices_a: array<vec4<f32>, TEAMS * 2u * SLICE_A>;
var<workgroup> slices_b: array<vec4<f32>, TEAMS * 2u * SLICE_B>;

// A thread's outputs: element 2·column + half has four rows of a column, the last one first in odd columns
alias Tile = array<vec4<f32>, 24>;

// i, or the last of `count` where it may lie beyond; `whole` says that it cannot
fn inside(i: u32, count: u32, whole: bool) -> u32 {
  return select(min(i, max(count, 1u) - 1u), i, whole);
}

// What a thread brings of its team's next slices: one or two vectors of a, up to three of b
struct Brought {
  a0: vec4<f32>,
  a1: vec4<f32>,
  b0: vec4<f32>,
  b1: vec4<f32>,
  b2: vec4<f32>,
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

// Adds up what two teams have summed up: a thread's upper four rows in the first team, its lower four in the second.
// Written out: with loops here, all kernels that read this file took up to 1.15 times as long, those of one team, too.
fn share(c: ptr<function, Tile>, team: u32, member: u32) {
  if (team == 0u) {
    slices_a[0u * TEAM + member] = (*c)[1];
    slices_a[1u * TEAM + member] = (*c)[3];
    slices_a[2u * TEAM + member] = (*c)[5];
    slices_a[3u * TEAM + member] = (*c)[7];
    slices_a[4u * TEAM + member] = (*c)[9];
    slices_a[5u * TEAM + member] = (*c)[11];
    slices_a[6u * TEAM + member] = (*c)[13];
    slices_a[7u * TEAM + member] = (*c)[15];
  } else {
    slices_b[0u * TEAM + member] = (*c)[0];
    slices_b[1u * TEAM + member] = (*c)[2];
    slices_b[2u * TEAM + member] = (*c)[4];
    slices_b[3u * TEAM + member] = (*c)[6];
    slices_b[4u * TEAM + member] = (*c)[8];
    slices_b[5u * TEAM + member] = (*c)[10];
    slices_b[6u * TEAM + member] = (*c)[12];
    slices_b[7u * TEAM + member] = (*c)[14];
  }
  workgroupBarrier();
  if (team == 0u) {
    (*c)[0] += slices_b[0u * TEAM + member];
    (*c)[2] += slices_b[1u * TEAM + member];
    (*c)[4] += slices_b[2u * TEAM + member];
    (*c)[6] += slices_b[3u * TEAM + member];
    (*c)[8] += slices_b[4u * TEAM + member];
    (*c)[10] += slices_b[5u * TEAM + member];
    (*c)[12] += slices_b[6u * TEAM + member];
    (*c)[14] += slices_b[7u * TEAM + member];
  } else {
    (*c)[1] += slices_a[0u * TEAM + member];
    (*c)[3] += slices_a[1u * TEAM + member];
    (*c)[5] += slices_a[2u * TEAM + member];
    (*c)[7] += slices_a[3u * TEAM + member];
    (*c)[9] += slices_a[4u * TEAM + member];
    (*c)[11] += slices_a[5u * TEAM + member];
    (*c)[13] += slices_a[6u * TEAM + member];
    (*c)[15] += slices_a[7u * TEAM + member];
  }
}

// Leaves sums of four rows of a tile where the slices were, which have the room unless TILE_N is 192: those of even
// numbers in a's, those of odd numbers in b's.
fn keep_sum(row: u32, column: u32, sum: vec4<f32>) {
  if (row % 2u == 0u) {
    slices_a[row / 2u * ROW_B + column] = sum;
  } else {
    slices_b[row / 2u * ROW_B + column] = sum;
  }
}

// What two of them add up to
fn sum_of_eight(at: u32) -> vec4<f32> {
  return slices_a[at] + slices_b[at];
}

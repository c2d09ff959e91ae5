// What kernels share that make products on matrix units: operands are f16, sums are f32. A workgroup of four subgroups
// makes a tile of TILE_M×TILE_N outputs from slices of SLICE columns of op(a) and SLICE rows of op(b) in workgroup
// memory; each subgroup makes a quarter of it, as 4×ACROSS fragments of SIDE×SIDE. While a slice is multiplied, the
// next one waits in registers. The results leave through workgroup memory, so that edges can be cut, the epilogue
// can be applied, and out can be f16 or f32.
//
// What made it fast on an H100 (SIDE 16, LANES 32; tiles of 128×128 or 128×96, slices of 32): slices kept as
// vec4<u32>, which makes copies 16 bytes wide and every fragment visibly aligned; fragments written out by name, as
// arrays of them do not stay in registers; less than 24 KiB of workgroup memory; no clamp where nothing lies beyond
// an edge, so that addresses grow by the same step from slice to slice; and what the epilogue reads on its way
// before the first of it is used. Two workgroups share a processor there. Tiles of 128×96 take 0.87 of the time of
// the wider ones for 0.75 of the work, which pays where it saves a round.
//
// What did not, by the rate of 4096×4096×4096 there: eight subgroups for tiles of 128×256 or 256×128 (0.83 to 0.93);
// halves of a slice, one kept while the other is multiplied (0.83 to 0.96); the next slice read half a slice later
// (0.84) or before the barrier (0.94 to 1); whole cache lines along k, kept for two slices (0.9 to 0.98). The order of
// multiplications within a slice and bands of 4 to 16 rows of tiles are level.
//
// A product's own part is in matmul_units_product.wgsl. `memory` is its kernel's, which knows how much it takes.
//
// Constants: TILE_M 8·SIDE, TILE_N 6·SIDE or 8·SIDE; SIDE (of a fragment) and LANES (of a subgroup), which the device
// says; SIDE·SIDE = 8·LANES, so that each thread copies four vectors of a and ACROSS of b

const SLICE = 2u * SIDE;
const ACROSS = TILE_N / (2u * SIDE);  // fragments beside each other in a subgroup's quarter
const THREADS = 4u * LANES;

// A row of fragments of results, as f32: SIDE rows of PATCH_WIDTH vectors
const PATCH_WIDTH = ACROSS * SIDE / 4u;
const PATCH_ROW = PATCH_WIDTH + 2u;
const PATCH = SIDE * PATCH_ROW;
const SHARE = SIDE * PATCH_WIDTH / LANES;  // vectors of it that a thread takes

alias Left = subgroup_matrix_left<f16, SIDE, SIDE>;
alias Right = subgroup_matrix_right<f16, SIDE, SIDE>;
alias Result = subgroup_matrix_result<f32, SIDE, SIDE>;

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

// What the epilogue adds or multiplies with at four outputs
struct Operands {
  aux: vec4<f32>,
  old: vec4<f32>,
}

// Row and vector of the i-th vector of a slice whose rows have `width`. Where k runs along short rows, neighbours
// take rows 0, 4, 1, 5, 2, 6, 3, 7, whose banks are disjoint.
fn place(i: u32, width: u32, along_k: bool) -> vec2<u32> {
  let row = i / width;
  return vec2<u32>(select(row, row / 8u * 8u + row % 2u * 4u + row % 8u / 2u, along_k), i % width);
}

// i, or the last of `count` where it may lie beyond; `whole` says that it cannot
fn inside(i: u32, count: u32, whole: bool) -> u32 {
  return select(min(i, max(count, 1u) - 1u), i, whole);
}

// A product out[M, N] = op(a) · op(b) on matrix units: what comes into the slices of matmul_fragments.wgsl, and what
// comes of them. A kernel of several products reads this file once for each, with a suffix behind all names of the next
// line, and behind those that are declared here (trainer/kernels.py).
//
// Given: M N K LDA LDB LDO PART TRANSPOSE_A TRANSPOSE_B read_a read_b operands store tile_at
//
// They are as in matmul.wgsl; read_a and read_b read vectors of eight halves of a and b; of the epilogue, operands reads
// what it needs at four outputs, and store writes them.
//
// Reads eight halves and writes four numbers at a time, so LDA, LDB, LDO and N must be multiples of 8, as must
// K unless TRANSPOSE_A and M if TRANSPOSE_A (then K is free, and b must not be transposed). Rows and columns
// beyond the edge come from clamped addresses and are not stored; what lies beyond K counts as 0.
//
// If PART is less than K, there is a product for each part of the sum, as in matmul_product.wgsl; PART is a multiple of
// SLICE then.

// A slice lies as its matrix does. Its rows are a vector longer than needed, so that they meet different banks.
const WIDTH_A = select(SLICE, TILE_M, TRANSPOSE_A) / 8u;
const WIDTH_B = select(TILE_N, SLICE, TRANSPOSE_B) / 8u;
const ROW_A = WIDTH_A + 1u;
const ROW_B = WIDTH_B + 1u;
const SLICE_B = select(TILE_M, SLICE, TRANSPOSE_A) * ROW_A;
const SLICES = SLICE_B + select(SLICE, TILE_N, TRANSPOSE_B) * ROW_B;

// What was read for number `inner` of a sum: 0 beyond K
fn summed(v: vec4<u32>, inner: u32) -> vec4<u32> {
  return select(vec4<u32>(), v, inner < K || K % SLICE == 0u);
}

// The i-th vector of the slice of op(a) that starts at row m and column 8k
fn load_a(i: u32, m: u32, k: u32) -> vec4<u32> {
  let at = place(i, WIDTH_A, !TRANSPOSE_A);
  if (TRANSPOSE_A) {
    let inner = 8u * k + at.x;
    let column = inside(m / 8u + at.y, M / 8u, M % TILE_M == 0u);
    return summed(read_a(inside(inner, K, K % SLICE == 0u) * (LDA / 8u) + column), inner);
  }
  let row = inside(m + at.x, M, M % TILE_M == 0u);
  return summed(read_a(row * (LDA / 8u) + inside(k + at.y, K / 8u, K % SLICE == 0u)), 8u * (k + at.y));
}

fn load_b(i: u32, k: u32, n: u32) -> vec4<u32> {
  let at = place(i, WIDTH_B, TRANSPOSE_B);
  if (TRANSPOSE_B) {
    let row = inside(n + at.x, N, N % TILE_N == 0u);
    return summed(read_b(row * (LDB / 8u) + inside(k + at.y, K / 8u, K % SLICE == 0u)), 8u * (k + at.y));
  }
  let inner = 8u * k + at.x;
  let column = inside(n / 8u + at.y, N / 8u, N % TILE_N == 0u);
  return summed(read_b(inside(inner, K, K % SLICE == 0u) * (LDB / 8u) + column), inner);
}

fn keep_a(i: u32, v: vec4<u32>) {
  let at = place(i, WIDTH_A, !TRANSPOSE_A);
  memory[at.x * ROW_A + at.y] = v;
}

fn keep_b(i: u32, v: vec4<u32>) {
  let at = place(i, WIDTH_B, TRANSPOSE_B);
  memory[SLICE_B + at.x * ROW_B + at.y] = v;
}

// The fragment of op(a) at row m and column k of the slice
fn left(m: u32, k: u32) -> Left {
  if (TRANSPOSE_A) {
    return subgroupMatrixLoad<Left, col_major>(&memory, k * ROW_A + m / 8u, ROW_A);
  }
  return subgroupMatrixLoad<Left, row_major>(&memory, m * ROW_A + k / 8u, ROW_A);
}

fn right(k: u32, n: u32) -> Right {
  if (TRANSPOSE_B) {
    return subgroupMatrixLoad<Right, col_major>(&memory, SLICE_B + n * ROW_B + k / 8u, ROW_B);
  }
  return subgroupMatrixLoad<Right, row_major>(&memory, SLICE_B + k * ROW_B + n / 8u, ROW_B);
}

// Stores the results that lie in the subgroup's patch: SIDE rows from m on, ACROSS·SIDE columns from n on. All that
// the epilogue reads is asked for first, so that it takes as long as one of them.
fn store_patch(part: u32, m: u32, n: u32, patch_start: u32, lane: u32) {
  var at: array<u32, SHARE>;  // in out, and in what the epilogue reads
  var read: array<Operands, SHARE>;
  for (var j = 0u; j < SHARE; j++) {
    let i = lane + j * LANES;
    at[j] = ((part * M + inside(m + i / PATCH_WIDTH, M, M % TILE_M == 0u)) * LDO
      + inside(n / 4u + i % PATCH_WIDTH, N / 4u, N % TILE_N == 0u) * 4u) / 4u;
    read[j] = operands(part, at[j]);
  }
  for (var j = 0u; j < SHARE; j++) {
    let i = lane + j * LANES;
    let row = i / PATCH_WIDTH;
    let column = n + i % PATCH_WIDTH * 4u;
    if ((M % TILE_M != 0u && m + row >= M) || (N % TILE_N != 0u && column >= N)) {
      continue;
    }
    let sums = bitcast<vec4<f32>>(memory[patch_start + row * PATCH_ROW + i % PATCH_WIDTH]);
    store(part, column, at[j], sums, read[j]);
  }
}

// Makes tile `number` of a part of the product.
fn multiply_tile(part: u32, number: u32, thread: u32) {
  let tile = tile_at(number);
  let tile_row = tile.x;
  let tile_column = tile.y;
  let subgroup = thread / LANES;
  let m = subgroup / 2u * 4u * SIDE;  // of the subgroup's quarter, in the tile
  let n = subgroup % 2u * ACROSS * SIDE;

  var c0_0 = Result(); var c0_1 = Result(); var c0_2 = Result(); var c0_3 = Result();
  var c1_0 = Result(); var c1_1 = Result(); var c1_2 = Result(); var c1_3 = Result();
  var c2_0 = Result(); var c2_1 = Result(); var c2_2 = Result(); var c2_3 = Result();
  var c3_0 = Result(); var c3_1 = Result(); var c3_2 = Result(); var c3_3 = Result();
  let start = part * (PART / 8u);  // k counts vectors of eight
  let end = min((K + 7u) / 8u, start + (PART + 7u) / 8u);
  var a0 = load_a(thread + 0u * THREADS, tile_row, start);
  var a1 = load_a(thread + 1u * THREADS, tile_row, start);
  var a2 = load_a(thread + 2u * THREADS, tile_row, start);
  var a3 = load_a(thread + 3u * THREADS, tile_row, start);
  var b0 = load_b(thread + 0u * THREADS, start, tile_column);
  var b1 = load_b(thread + 1u * THREADS, start, tile_column);
  var b2 = load_b(thread + 2u * THREADS, start, tile_column);
  var b3: vec4<u32>;
  if (ACROSS > 3u) { b3 = load_b(thread + 3u * THREADS, start, tile_column); }
  for (var k = start; k < end; k += SLICE / 8u) {
    keep_a(thread + 0u * THREADS, a0);
    keep_a(thread + 1u * THREADS, a1);
    keep_a(thread + 2u * THREADS, a2);
    keep_a(thread + 3u * THREADS, a3);
    keep_b(thread + 0u * THREADS, b0);
    keep_b(thread + 1u * THREADS, b1);
    keep_b(thread + 2u * THREADS, b2);
    if (ACROSS > 3u) { keep_b(thread + 3u * THREADS, b3); }
    workgroupBarrier();
    let next = k + SLICE / 8u;
    if (next < end) {
      a0 = load_a(thread + 0u * THREADS, tile_row, next);
      a1 = load_a(thread + 1u * THREADS, tile_row, next);
      a2 = load_a(thread + 2u * THREADS, tile_row, next);
      a3 = load_a(thread + 3u * THREADS, tile_row, next);
      b0 = load_b(thread + 0u * THREADS, next, tile_column);
      b1 = load_b(thread + 1u * THREADS, next, tile_column);
      b2 = load_b(thread + 2u * THREADS, next, tile_column);
      if (ACROSS > 3u) { b3 = load_b(thread + 3u * THREADS, next, tile_column); }
    }
    {
      let left0 = left(m + 0u * SIDE, 0u);
      let left1 = left(m + 1u * SIDE, 0u);
      let left2 = left(m + 2u * SIDE, 0u);
      let left3 = left(m + 3u * SIDE, 0u);
      let right0 = right(0u, n + 0u * SIDE);
      c0_0 = subgroupMatrixMultiplyAccumulate(left0, right0, c0_0);
      c1_0 = subgroupMatrixMultiplyAccumulate(left1, right0, c1_0);
      c2_0 = subgroupMatrixMultiplyAccumulate(left2, right0, c2_0);
      c3_0 = subgroupMatrixMultiplyAccumulate(left3, right0, c3_0);
      let right1 = right(0u, n + 1u * SIDE);
      c0_1 = subgroupMatrixMultiplyAccumulate(left0, right1, c0_1);
      c1_1 = subgroupMatrixMultiplyAccumulate(left1, right1, c1_1);
      c2_1 = subgroupMatrixMultiplyAccumulate(left2, right1, c2_1);
      c3_1 = subgroupMatrixMultiplyAccumulate(left3, right1, c3_1);
      let right2 = right(0u, n + 2u * SIDE);
      c0_2 = subgroupMatrixMultiplyAccumulate(left0, right2, c0_2);
      c1_2 = subgroupMatrixMultiplyAccumulate(left1, right2, c1_2);
      c2_2 = subgroupMatrixMultiplyAccumulate(left2, right2, c2_2);
      c3_2 = subgroupMatrixMultiplyAccumulate(left3, right2, c3_2);
      if (ACROSS > 3u) {
        let right3 = right(0u, n + 3u * SIDE);
        c0_3 = subgroupMatrixMultiplyAccumulate(left0, right3, c0_3);
        c1_3 = subgroupMatrixMultiplyAccumulate(left1, right3, c1_3);
        c2_3 = subgroupMatrixMultiplyAccumulate(left2, right3, c2_3);
        c3_3 = subgroupMatrixMultiplyAccumulate(left3, right3, c3_3);
      }
    }
    {
      let left0 = left(m + 0u * SIDE, SIDE);
      let left1 = left(m + 1u * SIDE, SIDE);
      let left2 = left(m + 2u * SIDE, SIDE);
      let left3 = left(m + 3u * SIDE, SIDE);
      let right0 = right(SIDE, n + 0u * SIDE);
      c0_0 = subgroupMatrixMultiplyAccumulate(left0, right0, c0_0);
      c1_0 = subgroupMatrixMultiplyAccumulate(left1, right0, c1_0);
      c2_0 = subgroupMatrixMultiplyAccumulate(left2, right0, c2_0);
      c3_0 = subgroupMatrixMultiplyAccumulate(left3, right0, c3_0);
      let right1 = right(SIDE, n + 1u * SIDE);
      c0_1 = subgroupMatrixMultiplyAccumulate(left0, right1, c0_1);
      c1_1 = subgroupMatrixMultiplyAccumulate(left1, right1, c1_1);
      c2_1 = subgroupMatrixMultiplyAccumulate(left2, right1, c2_1);
      c3_1 = subgroupMatrixMultiplyAccumulate(left3, right1, c3_1);
      let right2 = right(SIDE, n + 2u * SIDE);
      c0_2 = subgroupMatrixMultiplyAccumulate(left0, right2, c0_2);
      c1_2 = subgroupMatrixMultiplyAccumulate(left1, right2, c1_2);
      c2_2 = subgroupMatrixMultiplyAccumulate(left2, right2, c2_2);
      c3_2 = subgroupMatrixMultiplyAccumulate(left3, right2, c3_2);
      if (ACROSS > 3u) {
        let right3 = right(SIDE, n + 3u * SIDE);
        c0_3 = subgroupMatrixMultiplyAccumulate(left0, right3, c0_3);
        c1_3 = subgroupMatrixMultiplyAccumulate(left1, right3, c1_3);
        c2_3 = subgroupMatrixMultiplyAccumulate(left2, right3, c2_3);
        c3_3 = subgroupMatrixMultiplyAccumulate(left3, right3, c3_3);
      }
    }
    workgroupBarrier();
  }

  let lane = thread % LANES;
  let patch_start = subgroup * PATCH;
  subgroupMatrixStore<row_major>(&memory, patch_start + 0u * SIDE / 4u, c0_0, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + 1u * SIDE / 4u, c0_1, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + 2u * SIDE / 4u, c0_2, PATCH_ROW);
  if (ACROSS > 3u) { subgroupMatrixStore<row_major>(&memory, patch_start + 3u * SIDE / 4u, c0_3, PATCH_ROW); }
  workgroupBarrier();
  store_patch(part, tile_row + m + 0u * SIDE, tile_column + n, patch_start, lane);
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&memory, patch_start + 0u * SIDE / 4u, c1_0, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + 1u * SIDE / 4u, c1_1, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + 2u * SIDE / 4u, c1_2, PATCH_ROW);
  if (ACROSS > 3u) { subgroupMatrixStore<row_major>(&memory, patch_start + 3u * SIDE / 4u, c1_3, PATCH_ROW); }
  workgroupBarrier();
  store_patch(part, tile_row + m + 1u * SIDE, tile_column + n, patch_start, lane);
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&memory, patch_start + 0u * SIDE / 4u, c2_0, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + 1u * SIDE / 4u, c2_1, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + 2u * SIDE / 4u, c2_2, PATCH_ROW);
  if (ACROSS > 3u) { subgroupMatrixStore<row_major>(&memory, patch_start + 3u * SIDE / 4u, c2_3, PATCH_ROW); }
  workgroupBarrier();
  store_patch(part, tile_row + m + 2u * SIDE, tile_column + n, patch_start, lane);
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&memory, patch_start + 0u * SIDE / 4u, c3_0, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + 1u * SIDE / 4u, c3_1, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + 2u * SIDE / 4u, c3_2, PATCH_ROW);
  if (ACROSS > 3u) { subgroupMatrixStore<row_major>(&memory, patch_start + 3u * SIDE / 4u, c3_3, PATCH_ROW); }
  workgroupBarrier();
  store_patch(part, tile_row + m + 3u * SIDE, tile_column + n, patch_start, lane);
}

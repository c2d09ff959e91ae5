// A product out[M, N] = op(a) · op(b) in tiles: what comes into the slices of matmul_slices.wgsl, and what comes of them.
// A kernel of several products reads this file once for each, with a suffix behind all names of the next line, and
// behind those that are declared here (trainer/kernels.py).
//
// Given: M N K LDA LDB LDO PART TRANSPOSE_A TRANSPOSE_B SUM_ROWS read_a read_b operands store tile_at
//
// They are as in matmul.wgsl; read_a and read_b read vectors of a and b; of the epilogue, operands reads what it needs
// at an output, and store writes one, and returns it: 0 beyond the edge. If SUM_ROWS, sums over rows of what was stored
// are left where the slices were (see keep_sum).
//
// Reads and writes four numbers at a time, under the conditions of matmul_direct.wgsl. Rows and columns beyond
// the edge come from clamped addresses and are not stored; what lies beyond K counts as 0.
//
// If PART is less than K, there is a product for each part of the sum: that over columns PART·part .. PART·part+PART-1
// of op(a) alone, in a matrix of its own behind the others', out [ceil(K / PART), M, N], to be added up. PART is a
// multiple of the columns of a turn then, which are 32 at most. So small outputs of long sums keep a GPU busy, too.

const WHOLE_K = K % (TEAMS * 2u * TILE_K) == 0u;  // nothing is read beyond it

// What was read for number `inner` of a sum: 0 beyond K
fn summed(v: vec4<f32>, inner: u32) -> vec4<f32> {
  return select(vec4<f32>(), v, WHOLE_K || inner < K);
}

// The i-th vector of the slice of op(a) that starts at row m and column 4k; neighbours read neighbours.
fn load_a(i: u32, m: u32, k: u32) -> vec4<f32> {
  if (TRANSPOSE_A) {
    let inner = 4u * k + i / ROW_A;
    let column = inside(m / 4u + i % ROW_A, M / 4u, M % TILE_M == 0u);
    return summed(read_a(inside(inner, K, WHOLE_K) * (LDA / 4u) + column), inner);
  }
  let row = inside(m + i / 2u, M, M % TILE_M == 0u);
  let column = k + i % 2u;
  return summed(read_a(row * (LDA / 4u) + inside(column, K / 4u, WHOLE_K)), 4u * column);
}

fn load_b(i: u32, k: u32, n: u32) -> vec4<f32> {
  if (TRANSPOSE_B) {
    let row = inside(n + i / 2u, N, N % TILE_N == 0u);
    let column = k + i % 2u;
    return summed(read_b(row * (LDB / 4u) + inside(column, K / 4u, WHOLE_K)), 4u * column);
  }
  let inner = 4u * k + i / ROW_B;
  let column = inside(n / 4u + i % ROW_B, N / 4u, N % TILE_N == 0u);
  return summed(read_b(inside(inner, K, WHOLE_K) * (LDB / 4u) + column), inner);
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

// A thread's share of its team's slices that start at column 4k of op(a), which is row 4k of op(b)
fn bring(lane: u32, m: u32, k: u32, n: u32) -> Brought {
  var r: Brought;
  r.a0 = load_a(lane, m, k);
  if (SLICE_A > TEAM) {
    r.a1 = load_a(lane + TEAM, m, k);
  }
  r.b0 = load_b(lane, k, n);
  if (SLICE_B > TEAM) {
    r.b1 = load_b(lane + TEAM, k, n);
  }
  if (SLICE_B > 2u * TEAM) {
    r.b2 = load_b(lane + 2u * TEAM, k, n);
  }
  return r;
}

fn keep(slice: u32, lane: u32, r: Brought) {
  keep_a(slice * SLICE_A, lane, r.a0);
  if (SLICE_A > TEAM) {
    keep_a(slice * SLICE_A, lane + TEAM, r.a1);
  }
  keep_b(slice * SLICE_B, lane, r.b0);
  if (SLICE_B > TEAM) {
    keep_b(slice * SLICE_B, lane + TEAM, r.b1);
  }
  if (SLICE_B > 2u * TEAM) {
    keep_b(slice * SLICE_B, lane + 2u * TEAM, r.b2);
  }
}

// c += a slice of a times one of b, while the other two are brought, from column 4k of op(a) on, and kept.
fn multiply_slice(c: ptr<function, Tile>, slice: u32, y: u32, x: u32, lane: u32, m: u32, k: u32, n: u32) {
  let next = bring(lane, m, k, n);
  multiply_seven(c, slice, y, x);
  keep(slice ^ 1u, lane, next);
  multiply_last(c, slice, y, x);
  workgroupBarrier();
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
  let s0 = store(part, rows.x, n, i.x, vec4<f32>(c0.x, c1.w, c2.x, c3.w), r0);
  let s1 = store(part, rows.y, n, i.y, vec4<f32>(c0.y, c1.z, c2.y, c3.z), r1);
  let s2 = store(part, rows.z, n, i.z, vec4<f32>(c0.z, c1.y, c2.z, c3.y), r2);
  let s3 = store(part, rows.w, n, i.w, vec4<f32>(c0.w, c1.x, c2.w, c3.x), r3);
  if (SUM_ROWS) {
    keep_sum(m % TILE_M / 4u, n % TILE_N / 4u, s0 + s1 + s2 + s3);
  }
}

// Makes tile `number` of a part of the product.
fn multiply_tile(part: u32, number: u32, lane: u32) {
  let tile = tile_at(number);
  let tile_row = tile.x;
  let tile_column = tile.y;

  let team = select(0u, lane / TEAM, TEAMS == 2u);
  let member = select(lane, lane % TEAM, TEAMS == 2u);
  // A team lies in TILE_M / 8 rows of ROW_B / BLOCKS threads; a subgroup of 32 has four rows and eight columns of them.
  const ACROSS = ROW_B / BLOCKS / 8u;  // subgroups beside each other
  let y = member / 32u / ACROSS * 4u + member % 32u / 8u;
  let x = member / 32u % ACROSS * 8u + member % 8u;

  var c = Tile();
  const OWN = select(TILE_K / 2u, TILE_K / 4u, SHORT);  // a team's columns in a turn; k counts vectors of four
  const STEP = TEAMS * OWN;
  let start = part * (PART / 4u);
  let end = min((K + 3u) / 4u, start + (PART + 3u) / 4u);
  let last = start + (end - start - 1u) / STEP * STEP;  // where the last turn starts: its slices are loaded again
  let first = team * OWN;
  var slice = 2u * team;
  keep(slice, member, bring(member, tile_row, start + first, tile_column));
  workgroupBarrier();
  for (var k = start; k < end; k += STEP) {
    let next = min(k + STEP, last) + first;
    if (SHORT) {
      multiply_slice(&c, slice, y, x, member, tile_row, next, tile_column);
      slice ^= 1u;
    } else {
      multiply_slice(&c, 2u * team, y, x, member, tile_row, k + first + TILE_K / 4u, tile_column);
      multiply_slice(&c, 2u * team + 1u, y, x, member, tile_row, next, tile_column);
    }
  }
  if (TEAMS == 2u) {
    share(&c, team, member);
    if (SUM_ROWS) {
      workgroupBarrier();
    }
  }
  // A block is rows m .. m+3 and columns n .. n+3; others lie below and to the right of it.
  let m = tile_row + y * 4u;
  let n = tile_column + x * 4u;
  const DOWN = TILE_M / 2u;
  const RIGHT = TILE_N / BLOCKS;
  if (team == 0u) {
    store_block(part, m, n, c[0], c[2], c[4], c[6]);
    store_block(part, m, n + RIGHT, c[8], c[10], c[12], c[14]);
    if (BLOCKS == 3u) {
      store_block(part, m, n + 2u * RIGHT, c[16], c[18], c[20], c[22]);
    }
  }
  if (team == TEAMS - 1u) {
    store_block(part, m + DOWN, n, c[1], c[3], c[5], c[7]);
    store_block(part, m + DOWN, n + RIGHT, c[9], c[11], c[13], c[15]);
    if (BLOCKS == 3u) {
      store_block(part, m + DOWN, n + 2u * RIGHT, c[17], c[19], c[21], c[23]);
    }
  }
}

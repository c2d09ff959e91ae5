// Causal self-attention as in attention.wgsl, on matrix units: what is stored is f16, sums are f32.
//
// A workgroup of four subgroups takes 4·SIDE rows of one head, SIDE each (queries, or for dk and dv keys). Their
// fragments stay in registers, as do those of what they sum up; the other rows (keys and values, or queries
// and dout) come through workgroup memory, TILE of them at a time, while the next ones wait in registers. Tiles
// above the diagonal are not visited.
//
// A fragment's elements cannot be reached, so scores go through a patch of workgroup memory that belongs to the
// subgroup. There 16 columns of a row are one thread's, which writes what it makes of them, as f16, where
// it read them, so that no other thread is in the way.
//
// The running maximum is moved lazily, as the sums would have to go through the patch: P may lie anywhere in
// f16's range, so the reference of a row starts 6 octaves above its largest score (P ≤ 2^-6) and moves when
// a P would pass 2^14. All P of a row have the same factor, which its sum has too.
//
// Rows beyond T come from clamped addresses; they are masked, or not stored.
//
// Constants: B T NH HS SCALE, and SIDE (of a fragment: 8 or 16) and LANES (of a subgroup), which the device says;
// SIDE·SIDE = 8·LANES. HS is a multiple of SIDE, and at most 4·SIDE.

@group(0) @binding(0) var<storage, read> qkv: array<vec4<u32>>;  // of eight halves each
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read> kept: array<f32>;  // lse, read again
@group(0) @binding(5) var<storage, read> dout: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> deltas: array<f32>;
@group(0) @binding(8) var<storage, read_write> dqkv: array<vec4<u32>>;

const THREADS = 4u * LANES;
const ROWS = 4u * SIDE;
const TILE = 2u * SIDE;
const HS8 = HS / 8u;  // a head's row in vectors
const C8 = NH * HS8;
const FRAGMENTS = HS / SIDE;  // across a head's row

const_assert HS % SIDE == 0u && FRAGMENTS <= 4u && (SIDE == 8u || SIDE == 16u) && SIDE * SIDE == 8u * LANES;

// Rows in workgroup memory are a vector longer than needed, so that they meet different banks.
const ROW = HS8 + 1u;
const B_TILE = TILE * ROW;  // where the second tile starts
const PATCHES = 2u * B_TILE;
const PATCH_ROW = TILE / 4u + 1u;
const PATCH = SIDE * PATCH_ROW;

var<workgroup> memory: array<vec4<u32>, PATCHES + 4u * PATCH>;
var<workgroup> tile_s: array<vec4<f32>, TILE / 2u>;  // lse of a tile's queries, then their delta
var<workgroup> moved: u32;  // whether a row's reference moved

alias Left = subgroup_matrix_left<f16, SIDE, SIDE>;
alias Right = subgroup_matrix_right<f16, SIDE, SIDE>;
alias Result = subgroup_matrix_result<f32, SIDE, SIDE>;

const LOG2_E = 1.4426950408889634;
const LN_2 = 0.6931471805599453;
const LOWEST = -1.0e30;

// A thread's columns of a row of scores, and what it makes of them
alias Sixteen = mat4x4<f32>;

fn halves(a: vec4<f32>, b: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(bitcast<vec2<u32>>(vec4<f16>(a)), bitcast<vec2<u32>>(vec4<f16>(b)));
}

// A thread's vectors of two tiles, of which FRAGMENTS are used
struct Waiting {
  v0: vec4<u32>,
  v1: vec4<u32>,
  v2: vec4<u32>,
  v3: vec4<u32>,
}

// i, or the last of T rows where it may lie beyond; `whole` says that it cannot, and so addresses grow by the same
// step from tile to tile.
fn inside(i: u32, whole: bool) -> u32 {
  return select(min(i, T - 1u), i, whole);
}

fn key_or_value(i: u32, head: u32, first: u32) -> vec4<u32> {
  let row = i / HS8;
  return qkv[head + inside(first + row % TILE, T % TILE == 0u) * 3u * C8 + (1u + row / TILE) * C8 + i % HS8];
}

// A tile of k and one of v, of the rows from `first` on; `head` is where the head's q starts.
fn load_keys_and_values(thread: u32, head: u32, first: u32) -> Waiting {
  var w: Waiting;
  w.v0 = key_or_value(thread, head, first);
  if (FRAGMENTS > 1u) { w.v1 = key_or_value(thread + THREADS, head, first); }
  if (FRAGMENTS > 2u) { w.v2 = key_or_value(thread + 2u * THREADS, head, first); }
  if (FRAGMENTS > 3u) { w.v3 = key_or_value(thread + 3u * THREADS, head, first); }
  return w;
}

fn query_or_dout(i: u32, bh: u32, first: u32) -> vec4<u32> {
  let row = i / HS8;
  let t = bh / NH * T + inside(first + row % TILE, T % TILE == 0u);
  let x = bh % NH * HS8 + i % HS8;
  if (row < TILE) {
    return qkv[t * 3u * C8 + x];
  }
  return dout[t * C8 + x];
}

// A tile of q and one of dout; `bh` counts heads.
fn load_queries_and_douts(thread: u32, bh: u32, first: u32) -> Waiting {
  var w: Waiting;
  w.v0 = query_or_dout(thread, bh, first);
  if (FRAGMENTS > 1u) { w.v1 = query_or_dout(thread + THREADS, bh, first); }
  if (FRAGMENTS > 2u) { w.v2 = query_or_dout(thread + 2u * THREADS, bh, first); }
  if (FRAGMENTS > 3u) { w.v3 = query_or_dout(thread + 3u * THREADS, bh, first); }
  return w;
}

// Four queries' lse, or delta, of those from `first` on; threads 0 .. TILE/2-1 have them all.
fn load_statistics(i: u32, bh: u32, first: u32) -> vec4<f32> {
  let t = bh * T + min(four(first + 4u * (i % (TILE / 4u))), vec4<u32>(T - 1u));
  if (i < TILE / 4u) {
    return vec4<f32>(kept[t.x], kept[t.y], kept[t.z], kept[t.w]);
  }
  return vec4<f32>(deltas[t.x], deltas[t.y], deltas[t.z], deltas[t.w]);
}

fn keep(i: u32, v: vec4<u32>) {
  memory[i / HS8 * ROW + i % HS8] = v;
}

fn keep_tiles(thread: u32, w: Waiting) {
  keep(thread, w.v0);
  if (FRAGMENTS > 1u) { keep(thread + THREADS, w.v1); }
  if (FRAGMENTS > 2u) { keep(thread + 2u * THREADS, w.v2); }
  if (FRAGMENTS > 3u) { keep(thread + 3u * THREADS, w.v3); }
}

// The fragment of rows `row` on of workgroup memory, and of the head's channels n·SIDE on
fn left(row: u32, n: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&memory, row * ROW + n * SIDE / 8u, ROW);
}

fn right(row: u32, n: u32) -> Right {
  return subgroupMatrixLoad<Right, row_major>(&memory, row * ROW + n * SIDE / 8u, ROW);
}

fn right_transposed(row: u32, n: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&memory, row * ROW + n * SIDE / 8u, ROW);
}

// Products of the rows whose fragments are given with SIDE rows in workgroup memory
fn dots(a0: Left, a1: Left, a2: Left, a3: Left, row: u32) -> Result {
  var s = subgroupMatrixMultiplyAccumulate(a0, right_transposed(row, 0u), Result());
  if (FRAGMENTS > 1u) { s = subgroupMatrixMultiplyAccumulate(a1, right_transposed(row, 1u), s); }
  if (FRAGMENTS > 2u) { s = subgroupMatrixMultiplyAccumulate(a2, right_transposed(row, 2u), s); }
  if (FRAGMENTS > 3u) { s = subgroupMatrixMultiplyAccumulate(a3, right_transposed(row, 3u), s); }
  return s;
}

// The next sum of weights · channels n·SIDE on of a tile, which starts at `row`
fn add(sum: Result, weights0: Left, weights1: Left, row: u32, n: u32) -> Result {
  let half = subgroupMatrixMultiplyAccumulate(weights0, right(row, n), sum);
  return subgroupMatrixMultiplyAccumulate(weights1, right(row + SIDE, n), half);
}

// Two fragments of results to the subgroup's patch
fn to_patch(patch_start: u32, a: Result, b: Result) {
  subgroupMatrixStore<row_major>(&memory, patch_start, a, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, patch_start + SIDE / 4u, b, PATCH_ROW);
}

fn from_patch(patch_start: u32, n: u32) -> Result {
  return subgroupMatrixLoad<Result, row_major>(&memory, patch_start + n * SIDE / 4u, PATCH_ROW);
}

// What threads made of scores, as f16
fn weights(patch_start: u32, n: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&memory, patch_start + n * SIDE / 4u, PATCH_ROW);
}

// The row of its subgroup's patch that is a thread's, and the first column
fn place(lane: u32) -> vec2<u32> {
  return vec2<u32>(lane / (SIDE / 8u), lane % (SIDE / 8u) * 16u);
}

fn read_scores(at: u32) -> Sixteen {
  return Sixteen(
    bitcast<vec4<f32>>(memory[at]),
    bitcast<vec4<f32>>(memory[at + 1u]),
    bitcast<vec4<f32>>(memory[at + 2u]),
    bitcast<vec4<f32>>(memory[at + 3u]),
  );
}

// Writes weights where their scores were read: the columns of a fragment lie together, from where its scores began.
fn write_weights(at: u32, w: Sixteen) {
  memory[at] = halves(w[0], w[1]);
  memory[at + select(2u, 1u, SIDE > 8u)] = halves(w[2], w[3]);
}

// Multiplies what lies at `at`, 16 columns of sums.
fn scale_scores(at: u32, factor: f32) {
  for (var i = at; i < at + 4u; i++) {
    memory[i] = bitcast<vec4<u32>>(factor * bitcast<vec4<f32>>(memory[i]));
  }
}

fn eight(at: u32, factor: f32) -> vec4<u32> {
  return halves(factor * bitcast<vec4<f32>>(memory[at]), factor * bitcast<vec4<f32>>(memory[at + 1u]));
}

fn four(first: u32) -> vec4<u32> {
  return first + vec4<u32>(0u, 1u, 2u, 3u);
}

// Numbers of query t and 16 keys from `first` on: `hidden` for keys that it does not see
fn masked(s: Sixteen, first: u32, t: u32, hidden: f32) -> Sixteen {
  return Sixteen(
    select(vec4<f32>(hidden), s[0], four(first) <= vec4<u32>(t)),
    select(vec4<f32>(hidden), s[1], four(first + 4u) <= vec4<u32>(t)),
    select(vec4<f32>(hidden), s[2], four(first + 8u) <= vec4<u32>(t)),
    select(vec4<f32>(hidden), s[3], four(first + 12u) <= vec4<u32>(t)),
  );
}

// Weights of a key and 16 queries from `first` on: 0 for queries that do not see it, or do not exist
fn seen_by(p: Sixteen, first: u32, key: u32) -> Sixteen {
  return Sixteen(
    select(vec4<f32>(), p[0], sees(four(first), key)),
    select(vec4<f32>(), p[1], sees(four(first + 4u), key)),
    select(vec4<f32>(), p[2], sees(four(first + 8u), key)),
    select(vec4<f32>(), p[3], sees(four(first + 12u), key)),
  );
}

fn sees(t: vec4<u32>, key: u32) -> vec4<bool> {
  return (t >= vec4<u32>(key)) & (t < vec4<u32>(T));
}

// exp(s·SCALE), over 2^reference
fn powers(s: Sixteen, reference: Sixteen) -> Sixteen {
  let x = s * (SCALE * LOG2_E) - reference;
  return Sixteen(exp2(x[0]), exp2(x[1]), exp2(x[2]), exp2(x[3]));
}

// lse, or delta, of the thread's columns
fn statistics(at: u32) -> Sixteen {
  return Sixteen(tile_s[at], tile_s[at + 1u], tile_s[at + 2u], tile_s[at + 3u]);
}

fn products(a: Sixteen, b: Sixteen) -> Sixteen {
  return Sixteen(a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]);
}

fn all_columns(x: f32) -> Sixteen {
  return Sixteen(vec4<f32>(x), vec4<f32>(x), vec4<f32>(x), vec4<f32>(x));
}

// The first row of a workgroup where long rows come first, so that the last workgroups to start are the shortest
fn rows_from_last(group: u32) -> u32 {
  return ((T + ROWS - 1u) / ROWS - 1u - group) * ROWS;
}

fn store_out(bh: u32, t: u32, channel: u32, at: u32, factor: f32) {
  let to = (bh / NH * T + t) * C8 + bh % NH * HS8 + channel / 8u;
  if (t < T && channel < HS) { out[to] = eight(at, factor); }
  if (t < T && channel + 8u < HS) { out[to + 1u] = eight(at + 2u, factor); }
}

// `part`: 0 for dq, 1 for dk, 2 for dv
fn store_gradient(part: u32, bh: u32, t: u32, channel: u32, at: u32, factor: f32) {
  let to = (bh / NH * T + t) * 3u * C8 + part * C8 + bh % NH * HS8 + channel / 8u;
  if (t < T && channel < HS) { dqkv[to] = eight(at, factor); }
  if (t < T && channel + 8u < HS) { dqkv[to + 1u] = eight(at + 2u, factor); }
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.x / NH * T * 3u * C8 + group.x % NH * HS8;
  let first_row = rows_from_last(group.y);
  let subgroup = thread / LANES;
  let own = first_row + subgroup * SIDE;  // the subgroup's first row
  let at = place(thread % LANES);
  let t = own + at.x;
  let patch_start = PATCHES + subgroup * PATCH;
  let scores_at = patch_start + at.x * PATCH_ROW + at.y / 4u;

  for (var i = thread; i < ROWS * HS8; i += THREADS) {
    keep(i, qkv[head + min(first_row + i / HS8, T - 1u) * 3u * C8 + i % HS8]);
  }
  workgroupBarrier();
  var q0 = left(subgroup * SIDE, 0u); var q1 = Left(); var q2 = Left(); var q3 = Left();
  if (FRAGMENTS > 1u) { q1 = left(subgroup * SIDE, 1u); }
  if (FRAGMENTS > 2u) { q2 = left(subgroup * SIDE, 2u); }
  if (FRAGMENTS > 3u) { q3 = left(subgroup * SIDE, 3u); }
  var sum0 = Result(); var sum1 = Result(); var sum2 = Result(); var sum3 = Result();
  var reference = LOWEST;  // of the thread's row, in octaves
  var sum = 0.0;  // of the thread's columns
  if (thread == 0u) { moved = 0u; }

  let end = min(T, first_row + ROWS);
  var next = load_keys_and_values(thread, head, 0u);
  for (var first = 0u; first < end; first += TILE) {
    workgroupBarrier();
    keep_tiles(thread, next);
    workgroupBarrier();
    if (first + TILE < end) {
      next = load_keys_and_values(thread, head, first + TILE);
    }
    let seen = first < own + SIDE;
    var shrink = 1.0;  // also of rows that see nothing here, as their sums go through the patch with the others
    if (seen) {
      to_patch(patch_start, dots(q0, q1, q2, q3, 0u), dots(q0, q1, q2, q3, SIDE));
    }
    workgroupBarrier();
    if (seen) {
      var s = read_scores(scores_at);
      if (first + TILE > own + 1u) { s = masked(s, first + at.y, t, LOWEST); }
      let m = max(max(s[0], s[1]), max(s[2], s[3]));
      var largest = max(max(m.x, m.y), max(m.z, m.w)) * (SCALE * LOG2_E);
      if (SIDE > 8u) { largest = max(largest, subgroupShuffleXor(largest, 1u)); }
      if (largest > reference + 14.0) {
        shrink = exp2(reference - largest - 6.0);
        reference = largest + 6.0;
        if (first > 0u) { moved = 1u; }
      }
      let p = powers(s, all_columns(reference));
      let four_sums = p[0] + p[1] + p[2] + p[3];
      sum = sum * shrink + (four_sums.x + four_sums.y) + (four_sums.z + four_sums.w);
      write_weights(scores_at, p);
    }
    let rescale = workgroupUniformLoad(&moved);
    let p0 = weights(patch_start, 0u);
    let p1 = weights(patch_start, 1u);
    if (rescale != 0u) {
      workgroupBarrier();
      if (thread == 0u) { moved = 0u; }
      to_patch(patch_start, sum0, sum1);
      workgroupBarrier();
      scale_scores(scores_at, shrink);
      workgroupBarrier();
      sum0 = from_patch(patch_start, 0u);
      sum1 = from_patch(patch_start, 1u);
      if (FRAGMENTS > 2u) {
        workgroupBarrier();
        to_patch(patch_start, sum2, sum3);
        workgroupBarrier();
        scale_scores(scores_at, shrink);
        workgroupBarrier();
        sum2 = from_patch(patch_start, 0u);
        sum3 = from_patch(patch_start, 1u);
      }
    }
    if (seen) {
      sum0 = add(sum0, p0, p1, TILE, 0u);
      if (FRAGMENTS > 1u) { sum1 = add(sum1, p0, p1, TILE, 1u); }
      if (FRAGMENTS > 2u) { sum2 = add(sum2, p0, p1, TILE, 2u); }
      if (FRAGMENTS > 3u) { sum3 = add(sum3, p0, p1, TILE, 3u); }
    }
  }

  if (SIDE > 8u) { sum += subgroupShuffleXor(sum, 1u); }
  if (t < T && at.y == 0u) {
    lse[group.x * T + t] = (reference + log2(sum)) * LN_2;
  }
  workgroupBarrier();
  to_patch(patch_start, sum0, sum1);
  workgroupBarrier();
  store_out(group.x, t, at.y, scores_at, 1.0 / sum);
  if (FRAGMENTS > 2u) {
    workgroupBarrier();
    to_patch(patch_start, sum2, sum3);
    workgroupBarrier();
    store_out(group.x, t, TILE + at.y, scores_at, 1.0 / sum);
  }
}

@compute @workgroup_size(THREADS)
fn backward_query(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.x / NH * T * 3u * C8 + group.x % NH * HS8;
  let first_row = rows_from_last(group.y);
  let subgroup = thread / LANES;
  let own = first_row + subgroup * SIDE;
  let at = place(thread % LANES);
  let t = own + at.x;
  let patch_start = PATCHES + subgroup * PATCH;
  let scores_at = patch_start + at.x * PATCH_ROW + at.y / 4u;
  let own_lse = kept[group.x * T + min(t, T - 1u)] * LOG2_E;
  let own_delta = deltas[group.x * T + min(t, T - 1u)];

  for (var i = thread; i < ROWS * HS8; i += THREADS) {
    keep(i, qkv[head + min(first_row + i / HS8, T - 1u) * 3u * C8 + i % HS8]);
  }
  workgroupBarrier();
  var q0 = left(subgroup * SIDE, 0u); var q1 = Left(); var q2 = Left(); var q3 = Left();
  if (FRAGMENTS > 1u) { q1 = left(subgroup * SIDE, 1u); }
  if (FRAGMENTS > 2u) { q2 = left(subgroup * SIDE, 2u); }
  if (FRAGMENTS > 3u) { q3 = left(subgroup * SIDE, 3u); }
  workgroupBarrier();
  for (var i = thread; i < ROWS * HS8; i += THREADS) {
    let row = group.x / NH * T + min(first_row + i / HS8, T - 1u);
    keep(i, dout[row * C8 + group.x % NH * HS8 + i % HS8]);
  }
  workgroupBarrier();
  var d0 = left(subgroup * SIDE, 0u); var d1 = Left(); var d2 = Left(); var d3 = Left();
  if (FRAGMENTS > 1u) { d1 = left(subgroup * SIDE, 1u); }
  if (FRAGMENTS > 2u) { d2 = left(subgroup * SIDE, 2u); }
  if (FRAGMENTS > 3u) { d3 = left(subgroup * SIDE, 3u); }
  var sum0 = Result(); var sum1 = Result(); var sum2 = Result(); var sum3 = Result();

  let end = min(T, first_row + ROWS);
  var next = load_keys_and_values(thread, head, 0u);
  for (var first = 0u; first < end; first += TILE) {
    workgroupBarrier();
    keep_tiles(thread, next);
    workgroupBarrier();
    if (first + TILE < end) {
      next = load_keys_and_values(thread, head, first + TILE);
    }
    let seen = first < own + SIDE;
    var p: Sixteen;
    if (seen) {
      to_patch(patch_start, dots(q0, q1, q2, q3, 0u), dots(q0, q1, q2, q3, SIDE));
    }
    workgroupBarrier();
    if (seen) {
      p = powers(read_scores(scores_at), all_columns(own_lse));
      if (first + TILE > own + 1u) { p = masked(p, first + at.y, t, 0.0); }
    }
    workgroupBarrier();
    if (seen) {
      to_patch(patch_start, dots(d0, d1, d2, d3, TILE), dots(d0, d1, d2, d3, TILE + SIDE));
    }
    workgroupBarrier();
    if (seen) {
      write_weights(scores_at, products(p, read_scores(scores_at) - all_columns(own_delta)));
    }
    workgroupBarrier();
    if (seen) {
      let ds0 = weights(patch_start, 0u);
      let ds1 = weights(patch_start, 1u);
      sum0 = add(sum0, ds0, ds1, 0u, 0u);
      if (FRAGMENTS > 1u) { sum1 = add(sum1, ds0, ds1, 0u, 1u); }
      if (FRAGMENTS > 2u) { sum2 = add(sum2, ds0, ds1, 0u, 2u); }
      if (FRAGMENTS > 3u) { sum3 = add(sum3, ds0, ds1, 0u, 3u); }
    }
  }

  workgroupBarrier();
  to_patch(patch_start, sum0, sum1);
  workgroupBarrier();
  store_gradient(0u, group.x, t, at.y, scores_at, SCALE);
  if (FRAGMENTS > 2u) {
    workgroupBarrier();
    to_patch(patch_start, sum2, sum3);
    workgroupBarrier();
    store_gradient(0u, group.x, t, TILE + at.y, scores_at, SCALE);
  }
}

// Scores here are those of the transposed matrix: a row is a key, a column a query.
@compute @workgroup_size(THREADS)
fn backward_key_value(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.x / NH * T * 3u * C8 + group.x % NH * HS8;
  let first_row = group.y * ROWS;
  let subgroup = thread / LANES;
  let own = first_row + subgroup * SIDE;
  let at = place(thread % LANES);
  let s = own + at.x;
  let patch_start = PATCHES + subgroup * PATCH;
  let scores_at = patch_start + at.x * PATCH_ROW + at.y / 4u;

  for (var i = thread; i < ROWS * HS8; i += THREADS) {
    keep(i, qkv[head + min(first_row + i / HS8, T - 1u) * 3u * C8 + C8 + i % HS8]);
  }
  workgroupBarrier();
  var k0 = left(subgroup * SIDE, 0u); var k1 = Left(); var k2 = Left(); var k3 = Left();
  if (FRAGMENTS > 1u) { k1 = left(subgroup * SIDE, 1u); }
  if (FRAGMENTS > 2u) { k2 = left(subgroup * SIDE, 2u); }
  if (FRAGMENTS > 3u) { k3 = left(subgroup * SIDE, 3u); }
  workgroupBarrier();
  for (var i = thread; i < ROWS * HS8; i += THREADS) {
    keep(i, qkv[head + min(first_row + i / HS8, T - 1u) * 3u * C8 + 2u * C8 + i % HS8]);
  }
  workgroupBarrier();
  var v0 = left(subgroup * SIDE, 0u); var v1 = Left(); var v2 = Left(); var v3 = Left();
  if (FRAGMENTS > 1u) { v1 = left(subgroup * SIDE, 1u); }
  if (FRAGMENTS > 2u) { v2 = left(subgroup * SIDE, 2u); }
  if (FRAGMENTS > 3u) { v3 = left(subgroup * SIDE, 3u); }
  var dk0 = Result(); var dk1 = Result(); var dk2 = Result(); var dk3 = Result();
  var dv0 = Result(); var dv1 = Result(); var dv2 = Result(); var dv3 = Result();

  var next = load_queries_and_douts(thread, group.x, first_row);
  var next_s = load_statistics(thread, group.x, first_row);
  for (var first = first_row; first < T; first += TILE) {
    workgroupBarrier();
    keep_tiles(thread, next);
    if (thread < TILE / 2u) { tile_s[thread] = next_s; }
    workgroupBarrier();
    if (first + TILE < T) {
      next = load_queries_and_douts(thread, group.x, first + TILE);
      next_s = load_statistics(thread, group.x, first + TILE);
    }
    let seen = first + TILE > own;
    var p: Sixteen;
    if (seen) {
      to_patch(patch_start, dots(k0, k1, k2, k3, 0u), dots(k0, k1, k2, k3, SIDE));
    }
    workgroupBarrier();
    if (seen) {
      p = powers(read_scores(scores_at), statistics(at.y / 4u) * LOG2_E);
      if (first < own + SIDE || first + TILE > T) { p = seen_by(p, first + at.y, s); }
      write_weights(scores_at, p);
    }
    workgroupBarrier();
    if (seen) {
      let p0 = weights(patch_start, 0u);
      let p1 = weights(patch_start, 1u);
      dv0 = add(dv0, p0, p1, TILE, 0u);
      if (FRAGMENTS > 1u) { dv1 = add(dv1, p0, p1, TILE, 1u); }
      if (FRAGMENTS > 2u) { dv2 = add(dv2, p0, p1, TILE, 2u); }
      if (FRAGMENTS > 3u) { dv3 = add(dv3, p0, p1, TILE, 3u); }
    }
    workgroupBarrier();
    if (seen) {
      to_patch(patch_start, dots(v0, v1, v2, v3, TILE), dots(v0, v1, v2, v3, TILE + SIDE));
    }
    workgroupBarrier();
    if (seen) {
      let delta = statistics(TILE / 4u + at.y / 4u);
      write_weights(scores_at, products(p, read_scores(scores_at) - delta));
    }
    workgroupBarrier();
    if (seen) {
      let ds0 = weights(patch_start, 0u);
      let ds1 = weights(patch_start, 1u);
      dk0 = add(dk0, ds0, ds1, 0u, 0u);
      if (FRAGMENTS > 1u) { dk1 = add(dk1, ds0, ds1, 0u, 1u); }
      if (FRAGMENTS > 2u) { dk2 = add(dk2, ds0, ds1, 0u, 2u); }
      if (FRAGMENTS > 3u) { dk3 = add(dk3, ds0, ds1, 0u, 3u); }
    }
  }

  workgroupBarrier();
  to_patch(patch_start, dk0, dk1);
  workgroupBarrier();
  store_gradient(1u, group.x, s, at.y, scores_at, SCALE);
  workgroupBarrier();
  to_patch(patch_start, dv0, dv1);
  workgroupBarrier();
  store_gradient(2u, group.x, s, at.y, scores_at, 1.0);
  if (FRAGMENTS > 2u) {
    workgroupBarrier();
    to_patch(patch_start, dk2, dk3);
    workgroupBarrier();
    store_gradient(1u, group.x, s, TILE + at.y, scores_at, SCALE);
    workgroupBarrier();
    to_patch(patch_start, dv2, dv3);
    workgroupBarrier();
    store_gradient(2u, group.x, s, TILE + at.y, scores_at, 1.0);
  }
}

// Causal self-attention as in attention.wgsl, on matrix units: what is stored is f16, sums are f32. Here are
// the forward pass and what all three kernels use; attention_units_backward.wgsl has the other two.
//
// A workgroup of four subgroups takes ROWS rows of one head, OWN each (queries, or for dk and dv keys). Their
// fragments stay in registers, as do those of what they sum up; the other rows (keys and values, or queries and
// dout) come through workgroup memory, SIDE of each at a time, while the next ones wait in registers. Tiles
// above the diagonal are not visited.
//
// A fragment's elements cannot be reached, so scores go through a patch of workgroup memory that belongs to the
// subgroup: OWN rows and SIDE columns, twice. A thread takes two runs of eight columns, and writes what it
// makes of them, as f16, where no other thread reads. They are a whole row where SIDE is 16, and two rows'
// where it is 8.
//
// The running maximum is moved lazily, as the sums would have to go through the patch: P may lie anywhere in
// f16's range, so the reference of a row starts 6 octaves above its largest score (P ≤ 2^-6) and moves when a P
// would pass 2^14. All P of a row have the same factor, which its sum has too.
//
// What made it fast on an H100: two rows of fragments a subgroup, which halves what is read of the tiles; few
// barriers a tile; less than 24 KiB of workgroup memory, beyond which fewer workgroups share a processor;
// fragments that have names, as arrays of them do not stay in registers.
//
// Rows beyond T come from clamped addresses; they are masked, or not stored.
//
// Constants: B T NH HS SCALE, and SIDE (of a fragment: 8 or 16) and LANES (of a subgroup), which the device
// says; SIDE·SIDE = 8·LANES. HS is a multiple of SIDE, and at most 4·SIDE.

@group(0) @binding(0) var<storage, read> qkv: array<vec4<u32>>;  // of eight halves each
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
@group(0) @binding(3) var<storage, read> result: array<vec4<u32>>;  // out, read again
@group(0) @binding(4) var<storage, read> kept: array<f32>;  // lse, read again
@group(0) @binding(5) var<storage, read> dout: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read> deltas: array<f32>;  // delta, read again
@group(0) @binding(8) var<storage, read_write> dqkv: array<vec4<u32>>;

const THREADS = 4u * LANES;
const OWN = 2u * SIDE;
const ROWS = 4u * OWN;
const HS8 = HS / 8u;  // a head's row in vectors
const C8 = NH * HS8;
const FRAGMENTS = HS / SIDE;  // across a head's row

const_assert HS % SIDE == 0u && FRAGMENTS <= 4u && (SIDE == 8u || SIDE == 16u) && SIDE * SIDE == 8u * LANES;

// Rows in workgroup memory are a vector longer than needed, so that they meet different banks. First come two tiles,
// then the patches, whose rows have SIDE numbers (scores) and SIDE more, SECOND vectors on. A workgroup's own rows
// come through the same memory, before there are others.
const ROW = HS8 + 1u;
const SECOND = SIDE / 4u;
const PATCH_ROW = 2u * SECOND + 1u;
const PATCHES = 2u * SIDE * ROW;
const PATCH = OWN * PATCH_ROW;

var<workgroup> memory: array<vec4<u32>, max(ROWS * ROW, PATCHES + 4u * PATCH)>;
var<workgroup> moved: u32;  // whether a row's reference moved

alias Left = subgroup_matrix_left<f16, SIDE, SIDE>;
alias Right = subgroup_matrix_right<f16, SIDE, SIDE>;
alias Result = subgroup_matrix_result<f32, SIDE, SIDE>;

// Fragments across a head's row, of which FRAGMENTS are used
struct Lefts { f0: Left, f1: Left, f2: Left, f3: Left }
struct Rights { f0: Right, f1: Right, f2: Right, f3: Right }
struct Sums { f0: Result, f1: Result, f2: Result, f3: Result }

const LOG2_E = 1.4426950408889634;
const LN_2 = 0.6931471805599453;
const LOWEST = -1.0e30;

// A thread's two runs of eight columns
alias Runs = mat4x4<f32>;

// Where they are: their rows among the subgroup's, first columns, and places in the patch, of scores and of weights
struct Place { row: vec2<u32>, column: vec2<u32>, scores: vec2<u32>, weights: vec2<u32> }

fn place(lane: u32, patch_start: u32) -> Place {
  var p: Place;
  p.row = vec2<u32>(lane, select(lane + 8u, lane, SIDE > 8u));
  p.column = vec2<u32>(0u, select(0u, 8u, SIDE > 8u));
  p.scores = patch_start + p.row * PATCH_ROW + p.column / 4u;
  p.weights = patch_start + p.row * PATCH_ROW + p.column / 8u;
  return p;
}

fn halves(a: vec4<f32>, b: vec4<f32>) -> vec4<u32> {
  return vec4<u32>(bitcast<vec2<u32>>(vec4<f16>(a)), bitcast<vec2<u32>>(vec4<f16>(b)));
}

// i, or the last of T rows where it may lie beyond. Where it cannot, addresses grow by the same step from tile to tile.
fn inside(i: u32) -> u32 {
  return select(min(i, T - 1u), i, T % SIDE == 0u);
}

// A thread's vectors of two tiles: those numbered thread and thread + THREADS, as far as there are so many
struct Waiting { v0: vec4<u32>, v1: vec4<u32> }

fn exists(i: u32) -> bool {
  return FRAGMENTS % 2u == 0u || i < 2u * SIDE * HS8;
}

fn load_key_or_value(i: u32, head: u32, key: u32, value: u32) -> vec4<u32> {
  let row = i / HS8;
  let t = inside(select(value, key, row < SIDE) + row % SIDE);
  return qkv[head + t * 3u * C8 + select(2u, 1u, row < SIDE) * C8 + i % HS8];
}

// SIDE keys, from `key` on, and as many values, from `value` on; `head` is where the head's q starts.
fn load_keys_and_values(thread: u32, head: u32, key: u32, value: u32) -> Waiting {
  var w: Waiting;
  if (exists(thread)) { w.v0 = load_key_or_value(thread, head, key, value); }
  if (FRAGMENTS > 2u && exists(thread + THREADS)) { w.v1 = load_key_or_value(thread + THREADS, head, key, value); }
  return w;
}

fn keep(i: u32, v: vec4<u32>) {
  memory[i / HS8 * ROW + i % HS8] = v;
}

fn keep_tiles(thread: u32, w: Waiting) {
  if (exists(thread)) { keep(thread, w.v0); }
  if (FRAGMENTS > 2u && exists(thread + THREADS)) { keep(thread + THREADS, w.v1); }
}

// The workgroup's own rows of q, k or v; `start` is where the head's lie in the batch's first row.
fn keep_own(thread: u32, start: u32, first: u32) {
  for (var i = thread; i < ROWS * HS8; i += THREADS) {
    keep(i, qkv[start + min(first + i / HS8, T - 1u) * 3u * C8 + i % HS8]);
  }
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

// SIDE rows, from `row` on, to be multiplied with others
fn own_rows(row: u32) -> Lefts {
  var x: Lefts;
  x.f0 = left(row, 0u);
  if (FRAGMENTS > 1u) { x.f1 = left(row, 1u); }
  if (FRAGMENTS > 2u) { x.f2 = left(row, 2u); }
  if (FRAGMENTS > 3u) { x.f3 = left(row, 3u); }
  return x;
}

// SIDE rows as the columns that others are multiplied with
fn columns(row: u32) -> Rights {
  var x: Rights;
  x.f0 = right_transposed(row, 0u);
  if (FRAGMENTS > 1u) { x.f1 = right_transposed(row, 1u); }
  if (FRAGMENTS > 2u) { x.f2 = right_transposed(row, 2u); }
  if (FRAGMENTS > 3u) { x.f3 = right_transposed(row, 3u); }
  return x;
}

// SIDE rows to be summed up with weights
fn summands(row: u32) -> Rights {
  var x: Rights;
  x.f0 = right(row, 0u);
  if (FRAGMENTS > 1u) { x.f1 = right(row, 1u); }
  if (FRAGMENTS > 2u) { x.f2 = right(row, 2u); }
  if (FRAGMENTS > 3u) { x.f3 = right(row, 3u); }
  return x;
}

fn dots(a: Lefts, b: Rights) -> Result {
  var s = subgroupMatrixMultiplyAccumulate(a.f0, b.f0, Result());
  if (FRAGMENTS > 1u) { s = subgroupMatrixMultiplyAccumulate(a.f1, b.f1, s); }
  if (FRAGMENTS > 2u) { s = subgroupMatrixMultiplyAccumulate(a.f2, b.f2, s); }
  if (FRAGMENTS > 3u) { s = subgroupMatrixMultiplyAccumulate(a.f3, b.f3, s); }
  return s;
}

// The next sums of weights · rows
fn add(sums: Sums, weights: Left, rows: Rights) -> Sums {
  var s = sums;
  s.f0 = subgroupMatrixMultiplyAccumulate(weights, rows.f0, s.f0);
  if (FRAGMENTS > 1u) { s.f1 = subgroupMatrixMultiplyAccumulate(weights, rows.f1, s.f1); }
  if (FRAGMENTS > 2u) { s.f2 = subgroupMatrixMultiplyAccumulate(weights, rows.f2, s.f2); }
  if (FRAGMENTS > 3u) { s.f3 = subgroupMatrixMultiplyAccumulate(weights, rows.f3, s.f3); }
  return s;
}

// Results of the subgroup's first SIDE rows, and of its other ones, to a half of its patch, and back
fn to_patch(at: u32, upper: Result, lower: Result) {
  subgroupMatrixStore<row_major>(&memory, at, upper, PATCH_ROW);
  subgroupMatrixStore<row_major>(&memory, at + SIDE * PATCH_ROW, lower, PATCH_ROW);
}

fn from_patch(at: u32, lower: u32) -> Result {
  return subgroupMatrixLoad<Result, row_major>(&memory, at + lower * SIDE * PATCH_ROW, PATCH_ROW);
}

// What threads made of scores
fn weights(at: u32, lower: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&memory, at + lower * SIDE * PATCH_ROW, PATCH_ROW);
}

fn read_runs(at: vec2<u32>) -> Runs {
  return Runs(
    bitcast<vec4<f32>>(memory[at.x]),
    bitcast<vec4<f32>>(memory[at.x + 1u]),
    bitcast<vec4<f32>>(memory[at.y]),
    bitcast<vec4<f32>>(memory[at.y + 1u]),
  );
}

fn write_weights(at: vec2<u32>, w: Runs) {
  memory[at.x] = halves(w[0], w[1]);
  memory[at.y] = halves(w[2], w[3]);
}

// A number for each of the two runs
fn of_runs(x: vec2<f32>) -> Runs {
  return Runs(vec4<f32>(x.x), vec4<f32>(x.x), vec4<f32>(x.y), vec4<f32>(x.y));
}

fn four(first: u32) -> vec4<u32> {
  return first + vec4<u32>(0u, 1u, 2u, 3u);
}

// Numbers of queries t, one for each run, and of keys from `first` on: `hidden` for keys that a query does not see
fn masked(x: Runs, first: vec2<u32>, t: vec2<u32>, hidden: f32) -> Runs {
  return Runs(
    select(vec4<f32>(hidden), x[0], four(first.x) <= vec4<u32>(t.x)),
    select(vec4<f32>(hidden), x[1], four(first.x + 4u) <= vec4<u32>(t.x)),
    select(vec4<f32>(hidden), x[2], four(first.y) <= vec4<u32>(t.y)),
    select(vec4<f32>(hidden), x[3], four(first.y + 4u) <= vec4<u32>(t.y)),
  );
}

// exp(s·SCALE), over 2^reference
fn powers(s: Runs, reference: Runs) -> Runs {
  let x = s * (SCALE * LOG2_E) - reference;
  return Runs(exp2(x[0]), exp2(x[1]), exp2(x[2]), exp2(x[3]));
}

// The first row of a workgroup where long rows come first, so that the last workgroups to start are the shortest
fn rows_from_last(group: u32) -> u32 {
  return ((T + ROWS - 1u) / ROWS - 1u - group) * ROWS;
}

// Eight sums that lie in the patch, as they are stored
fn eight(at: u32, factor: f32) -> vec4<u32> {
  return halves(factor * bitcast<vec4<f32>>(memory[at]), factor * bitcast<vec4<f32>>(memory[at + 1u]));
}

fn most(a: vec4<f32>, b: vec4<f32>) -> f32 {
  let m = max(a, b);
  return max(max(m.x, m.y), max(m.z, m.w));
}

fn scale_eight(at: u32, factor: f32) {
  memory[at] = bitcast<vec4<u32>>(factor * bitcast<vec4<f32>>(memory[at]));
  memory[at + 1u] = bitcast<vec4<u32>>(factor * bitcast<vec4<f32>>(memory[at + 1u]));
}

// Multiplies the sums in both halves of the patch by the factors of their runs' rows.
fn scale_patch(at: vec2<u32>, factor: vec2<f32>) {
  workgroupBarrier();
  scale_eight(at.x, factor.x);
  scale_eight(at.y, factor.y);
  scale_eight(at.x + SECOND, factor.x);
  scale_eight(at.y + SECOND, factor.y);
  workgroupBarrier();
}

fn store_out(bh: u32, t: u32, channel: u32, at: u32, factor: f32) {
  if (t < T && channel < HS) {
    out[(bh / NH * T + t) * C8 + bh % NH * HS8 + channel / 8u] = eight(at, factor);
  }
}

// Stores what lies in both halves of the patch: SIDE channels from `channel` on, and the next SIDE.
fn store_patch(bh: u32, t: vec2<u32>, channel: u32, p: Place, factor: vec2<f32>) {
  workgroupBarrier();
  store_out(bh, t.x, channel + p.column.x, p.scores.x, factor.x);
  store_out(bh, t.y, channel + p.column.y, p.scores.y, factor.y);
  store_out(bh, t.x, channel + SIDE + p.column.x, p.scores.x + SECOND, factor.x);
  store_out(bh, t.y, channel + SIDE + p.column.y, p.scores.y + SECOND, factor.y);
  workgroupBarrier();
}

// Keys are a tile ahead of values: while a tile's weights are multiplied with its values, queries are with the next
// tile's keys. Scores lie in the first half of the patch, weights in the second one.
@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.x / NH * T * 3u * C8 + group.x % NH * HS8;
  let first_row = rows_from_last(group.y);
  let subgroup = thread / LANES;
  let own = first_row + subgroup * OWN;  // the subgroup's first row
  let patch_start = PATCHES + subgroup * PATCH;
  let p = place(thread % LANES, patch_start);
  let t = own + p.row;

  keep_own(thread, head, first_row);
  workgroupBarrier();
  let q0 = own_rows(subgroup * OWN);
  let q1 = own_rows(subgroup * OWN + SIDE);
  var sums0: Sums;
  var sums1: Sums;
  var reference = vec2<f32>(LOWEST);  // of the runs' rows, in octaves
  var sum = vec2<f32>();  // of the runs
  if (thread == 0u) { moved = 0u; }
  workgroupBarrier();

  let end = min(T, first_row + ROWS);
  let last = (end - 1u) / SIDE * SIDE;  // the last tile
  keep_tiles(thread, load_keys_and_values(thread, head, 0u, 0u));
  var next = load_keys_and_values(thread, head, min(SIDE, last), 0u);
  workgroupBarrier();
  {
    let k = columns(0u);
    to_patch(patch_start, dots(q0, k), dots(q1, k));
  }
  for (var first = 0u; first < end; first += SIDE) {
    workgroupBarrier();
    keep_tiles(thread, next);
    if (first < last) {
      next = load_keys_and_values(thread, head, min(first + 2u * SIDE, last), first + SIDE);
    }
    let seen = first < own + OWN;
    var shrink = vec2<f32>(1.0);  // also of rows that see nothing here: their sums go through the patch with others
    if (seen) {
      var s = read_runs(p.scores);
      if (first + SIDE > own + 1u) { s = masked(s, first + p.column, t, LOWEST); }
      var largest = vec2<f32>(most(s[0], s[1]), most(s[2], s[3])) * (SCALE * LOG2_E);
      if (SIDE > 8u) { largest = vec2<f32>(max(largest.x, largest.y)); }
      let moves = largest > reference + 14.0;
      if (any(moves)) {
        shrink = select(shrink, exp2(reference - largest - 6.0), moves);
        reference = select(reference, largest + 6.0, moves);
        if (first > 0u) { moved = 1u; }
      }
      let weight = powers(s, of_runs(reference));
      let x = weight[0] + weight[1];
      let y = weight[2] + weight[3];
      sum = sum * shrink + vec2<f32>((x.x + x.y) + (x.z + x.w), (y.x + y.y) + (y.z + y.w));
      write_weights(p.weights + SECOND, weight);
    }
    let rescale = workgroupUniformLoad(&moved);
    let w0 = weights(patch_start + SECOND, 0u);
    let w1 = weights(patch_start + SECOND, 1u);
    if (rescale != 0u) {
      workgroupBarrier();
      if (thread == 0u) { moved = 0u; }
      to_patch(patch_start, sums0.f0, sums1.f0);
      to_patch(patch_start + SECOND, sums0.f1, sums1.f1);
      scale_patch(p.scores, shrink);
      sums0.f0 = from_patch(patch_start, 0u);
      sums1.f0 = from_patch(patch_start, 1u);
      sums0.f1 = from_patch(patch_start + SECOND, 0u);
      sums1.f1 = from_patch(patch_start + SECOND, 1u);
      workgroupBarrier();
      if (FRAGMENTS > 2u) {
        to_patch(patch_start, sums0.f2, sums1.f2);
        to_patch(patch_start + SECOND, sums0.f3, sums1.f3);
        scale_patch(p.scores, shrink);
        sums0.f2 = from_patch(patch_start, 0u);
        sums1.f2 = from_patch(patch_start, 1u);
        sums0.f3 = from_patch(patch_start + SECOND, 0u);
        sums1.f3 = from_patch(patch_start + SECOND, 1u);
        workgroupBarrier();
      }
    }
    if (seen) {
      let v = summands(SIDE);
      sums0 = add(sums0, w0, v);
      sums1 = add(sums1, w1, v);
    }
    if (first + SIDE < min(end, own + OWN)) {
      let k = columns(0u);
      to_patch(patch_start, dots(q0, k), dots(q1, k));
    }
  }

  if (SIDE > 8u) { sum = vec2<f32>(sum.x + sum.y); }
  let logs = (reference + log2(sum)) * LN_2;
  if (t.x < T) { lse[group.x * T + t.x] = logs.x; }
  if (SIDE == 8u && t.y < T) { lse[group.x * T + t.y] = logs.y; }
  workgroupBarrier();
  to_patch(patch_start, sums0.f0, sums1.f0);
  to_patch(patch_start + SECOND, sums0.f1, sums1.f1);
  store_patch(group.x, t, 0u, p, 1.0 / sum);
  if (FRAGMENTS > 2u) {
    to_patch(patch_start, sums0.f2, sums1.f2);
    to_patch(patch_start + SECOND, sums0.f3, sums1.f3);
    store_patch(group.x, t, OWN, p, 1.0 / sum);
  }
}

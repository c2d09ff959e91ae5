// The backward pass of attention_units.wgsl, whose constants, tiles and patches these kernels use.
//
// Scores lie in the first half of a patch, dP = dout vᵀ in the second one, so that both are there after one
// barrier; weights are written over them, as f16. dP is f32 until then: summed up in f16, which the units can do,
// it would save a few percent of the time, and put the worst of dq and dk off by several times as much.

fn products(a: Runs, b: Runs) -> Runs {
  return Runs(a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]);
}

// `part`: 0 for dq, 1 for dk, 2 for dv
fn store_eight(part: u32, bh: u32, t: u32, channel: u32, at: u32, factor: f32) {
  if (t < T && channel < HS) {
    dqkv[(bh / NH * T + t) * 3u * C8 + part * C8 + bh % NH * HS8 + channel / 8u] = eight(at, factor);
  }
}

// Stores what lies in both halves of the patch: SIDE channels from `channel` on, and the next SIDE.
fn store_gradients(part: u32, bh: u32, t: vec2<u32>, channel: u32, p: Place, factor: f32) {
  workgroupBarrier();
  store_eight(part, bh, t.x, channel + p.column.x, p.scores.x, factor);
  store_eight(part, bh, t.y, channel + p.column.y, p.scores.y, factor);
  store_eight(part, bh, t.x, channel + SIDE + p.column.x, p.scores.x + SECOND, factor);
  store_eight(part, bh, t.y, channel + SIDE + p.column.y, p.scores.y + SECOND, factor);
  workgroupBarrier();
}

// Stores the sums of the subgroup's rows, by way of its patch.
fn store_sums(
  upper: Sums,
  lower: Sums,
  part: u32,
  bh: u32,
  t: vec2<u32>,
  patch_start: u32,
  p: Place,
  factor: f32,
) {
  to_patch(patch_start, upper.f0, lower.f0);
  to_patch(patch_start + SECOND, upper.f1, lower.f1);
  store_gradients(part, bh, t, 0u, p, factor);
  if (FRAGMENTS > 2u) {
    to_patch(patch_start, upper.f2, lower.f2);
    to_patch(patch_start + SECOND, upper.f3, lower.f3);
    store_gradients(part, bh, t, OWN, p, factor);
  }
}

fn dot_of_eight(a: vec4<u32>, b: vec4<u32>) -> f32 {
  let x = vec4<f32>(bitcast<vec4<f16>>(a.xy)) * vec4<f32>(bitcast<vec4<f16>>(b.xy));
  let y = vec4<f32>(bitcast<vec4<f16>>(a.zw)) * vec4<f32>(bitcast<vec4<f16>>(b.zw));
  let sum = x + y;
  return (sum.x + sum.y) + (sum.z + sum.w);
}

// delta of query t, whose dout is row `own` of workgroup memory
fn own_row_times_out(own: u32, bh: u32, t: u32) -> f32 {
  let start = (bh / NH * T + min(t, T - 1u)) * C8 + bh % NH * HS8;
  var sum = 0.0;
  for (var i = 0u; i < HS8; i++) {
    sum += dot_of_eight(memory[own * ROW + i], result[start + i]);
  }
  return sum;
}

@compute @workgroup_size(THREADS)
fn backward_query(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.x / NH * T * 3u * C8 + group.x % NH * HS8;
  let first_row = rows_from_last(group.y);
  let subgroup = thread / LANES;
  let own = first_row + subgroup * OWN;
  let patch_start = PATCHES + subgroup * PATCH;
  let p = place(thread % LANES, patch_start);
  let t = own + p.row;
  let row = group.x * T + min(t, vec2<u32>(T - 1u));
  let own_lse = of_runs(vec2<f32>(kept[row.x], kept[row.y]) * LOG2_E);

  keep_own(thread, head, first_row);
  workgroupBarrier();
  let q0 = own_rows(subgroup * OWN);
  let q1 = own_rows(subgroup * OWN + SIDE);
  workgroupBarrier();
  for (var i = thread; i < ROWS * HS8; i += THREADS) {
    let t = group.x / NH * T + min(first_row + i / HS8, T - 1u);
    keep(i, dout[t * C8 + group.x % NH * HS8 + i % HS8]);
  }
  workgroupBarrier();
  let d0 = own_rows(subgroup * OWN);
  let d1 = own_rows(subgroup * OWN + SIDE);
  var deltas_of_rows = vec2<f32>(own_row_times_out(subgroup * OWN + p.row.x, group.x, t.x));
  if (SIDE == 8u) { deltas_of_rows.y = own_row_times_out(subgroup * OWN + p.row.y, group.x, t.y); }
  if (t.x < T) { delta[row.x] = deltas_of_rows.x; }
  if (SIDE == 8u && t.y < T) { delta[row.y] = deltas_of_rows.y; }
  let own_delta = of_runs(deltas_of_rows);
  var dq0: Sums;
  var dq1: Sums;

  let end = min(T, first_row + ROWS);
  var next = load_keys_and_values(thread, head, 0u, 0u);
  for (var first = 0u; first < end; first += SIDE) {
    workgroupBarrier();
    keep_tiles(thread, next);
    workgroupBarrier();
    if (first + SIDE < end) {
      next = load_keys_and_values(thread, head, first + SIDE, first + SIDE);
    }
    let seen = first < own + OWN;
    if (seen) {
      let k = columns(0u);
      to_patch(patch_start, dots(q0, k), dots(q1, k));
      let v = columns(SIDE);
      to_patch(patch_start + SECOND, dots(d0, v), dots(d1, v));
    }
    workgroupBarrier();
    if (seen) {
      let weight = powers(read_runs(p.scores), own_lse);
      var ds = products(weight, read_runs(p.scores + SECOND) - own_delta);
      if (first + SIDE > own + 1u) { ds = masked(ds, first + p.column, t, 0.0); }
      write_weights(p.weights, ds);
    }
    workgroupBarrier();
    if (seen) {
      let k = summands(0u);
      dq0 = add(dq0, weights(patch_start, 0u), k);
      dq1 = add(dq1, weights(patch_start, 1u), k);
    }
  }
  workgroupBarrier();
  store_sums(dq0, dq1, 0u, group.x, t, patch_start, p, SCALE);
}

fn load_query_or_dout(i: u32, bh: u32, first: u32) -> vec4<u32> {
  let row = i / HS8;
  let t = bh / NH * T + inside(first + row % SIDE);
  let x = bh % NH * HS8 + i % HS8;
  if (row < SIDE) {
    return qkv[t * 3u * C8 + x];
  }
  return dout[t * C8 + x];
}

// SIDE queries and their dout, from `first` on; `bh` counts heads.
fn load_queries_and_douts(thread: u32, bh: u32, first: u32) -> Waiting {
  var w: Waiting;
  if (exists(thread)) { w.v0 = load_query_or_dout(thread, bh, first); }
  if (FRAGMENTS > 2u && exists(thread + THREADS)) { w.v1 = load_query_or_dout(thread + THREADS, bh, first); }
  return w;
}

// lse and delta of query t, as they are: they are asked for a tile ahead, and what is made of them has to wait
fn load_statistics(bh: u32, t: u32) -> vec2<f32> {
  let row = bh * T + inside(t);
  return vec2<f32>(kept[row], deltas[row]);
}

// For dk and dv, a subgroup's patch has SIDE rows (queries) and OWN columns (its keys), twice, dP behind the
// scores. So a query's lse and delta are a row's. A thread takes 16 columns of a row.
const WIDE_SECOND = OWN / 4u;
const WIDE_ROW = 2u * WIDE_SECOND + 1u;

const_assert SIDE * WIDE_ROW <= PATCH;

fn wide_place(lane: u32, patch_start: u32) -> Place {
  var p: Place;
  p.row = vec2<u32>(lane / (SIDE / 8u));
  p.column = lane % (SIDE / 8u) * 16u + vec2<u32>(0u, 8u);
  p.scores = patch_start + p.row * WIDE_ROW + p.column / 4u;
  // the columns of a fragment lie together, from where its scores began
  p.weights = p.scores - vec2<u32>(0u, select(0u, 1u, SIDE > 8u));
  return p;
}

// Products with the subgroup's first SIDE keys, and with its other ones
fn to_wide_patch(at: u32, upper: Result, lower: Result) {
  subgroupMatrixStore<row_major>(&memory, at, upper, WIDE_ROW);
  subgroupMatrixStore<row_major>(&memory, at + SIDE / 4u, lower, WIDE_ROW);
}

// Weights of which a row is a key, and a column a query
fn transposed_weights(at: u32, lower: u32) -> Left {
  return subgroupMatrixLoad<Left, col_major>(&memory, at + lower * SIDE / 4u, WIDE_ROW);
}

@compute @workgroup_size(THREADS)
fn backward_key_value(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.x / NH * T * 3u * C8 + group.x % NH * HS8;
  let first_row = group.y * ROWS;
  let subgroup = thread / LANES;
  let own = first_row + subgroup * OWN;
  let patch_start = PATCHES + subgroup * PATCH;
  let p = wide_place(thread % LANES, patch_start);

  keep_own(thread, head + C8, first_row);
  workgroupBarrier();
  let k0 = columns(subgroup * OWN);
  let k1 = columns(subgroup * OWN + SIDE);
  workgroupBarrier();
  keep_own(thread, head + 2u * C8, first_row);
  workgroupBarrier();
  let v0 = columns(subgroup * OWN);
  let v1 = columns(subgroup * OWN + SIDE);
  var dk0: Sums;
  var dk1: Sums;
  var dv0: Sums;
  var dv1: Sums;

  var next = load_queries_and_douts(thread, group.x, first_row);
  var next_statistics = load_statistics(group.x, first_row + p.row.x);
  for (var first = first_row; first < T; first += SIDE) {
    workgroupBarrier();
    keep_tiles(thread, next);
    workgroupBarrier();
    let t = first + p.row;
    // A query beyond T has an lse that makes all its weights 0.
    let query_lse = select(-LOWEST, next_statistics.x * LOG2_E, t.x < T);
    let query_delta = next_statistics.y;
    if (first + SIDE < T) {
      next = load_queries_and_douts(thread, group.x, first + SIDE);
      next_statistics = load_statistics(group.x, t.x + SIDE);
    }
    let seen = first + SIDE > own;
    if (seen) {
      let q = own_rows(0u);
      to_wide_patch(patch_start, dots(q, k0), dots(q, k1));
      let d = own_rows(SIDE);
      to_wide_patch(patch_start + WIDE_SECOND, dots(d, v0), dots(d, v1));
    }
    workgroupBarrier();
    if (seen) {
      var weight = powers(read_runs(p.scores), of_runs(vec2<f32>(query_lse)));
      if (first < own + OWN) { weight = masked(weight, own + p.column, t, 0.0); }
      let ds = products(weight, read_runs(p.scores + WIDE_SECOND) - of_runs(vec2<f32>(query_delta)));
      write_weights(p.weights, weight);
      write_weights(p.weights + WIDE_SECOND, ds);
    }
    workgroupBarrier();
    if (seen) {
      let d = summands(SIDE);
      dv0 = add(dv0, transposed_weights(patch_start, 0u), d);
      dv1 = add(dv1, transposed_weights(patch_start, 1u), d);
      let q = summands(0u);
      dk0 = add(dk0, transposed_weights(patch_start + WIDE_SECOND, 0u), q);
      dk1 = add(dk1, transposed_weights(patch_start + WIDE_SECOND, 1u), q);
    }
  }
  let keys = place(thread % LANES, patch_start);
  workgroupBarrier();
  store_sums(dk0, dk1, 1u, group.x, own + keys.row, patch_start, keys, SCALE);
  store_sums(dv0, dv1, 2u, group.x, own + keys.row, patch_start, keys, 1.0);
}

// Causal self-attention as in attention.wgsl, tiled: a workgroup takes 64 rows of one head, a thread each, and
// brings the keys and values (or, for dk and dv, the queries and dout) through workgroup memory, a tile at a
// time, so that each is read from memory once for 64 rows. Tiles above the diagonal are not visited.
//
// Each thread keeps its rows in registers. As k, v, dk and dv together would not fit there for heads of 64
// channels, two threads share a key: one has k and dv, the other v and dk, and P goes from the one to the other.
//
// Constants: B T NH HS SCALE

@group(0) @binding(0) var<storage, read> qkv: array<qkv_type>;
@group(0) @binding(1) var<storage, read_write> out: array<out_type>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read> kept: array<f32>;  // lse, read again
@group(0) @binding(5) var<storage, read> dout: array<dout_type>;
@group(0) @binding(7) var<storage, read> deltas: array<f32>;
@group(0) @binding(8) var<storage, read_write> dqkv: array<dqkv_type>;

const C = NH * HS;
const ROWS = 64u;
const HS4 = (HS + 3u) / 4u;  // a row in vectors; the last one is filled up with zeros
const TILE = min(32u, 256u / HS4 / 4u * 4u);  // rows of a tile: a multiple of 4, within 8 KiB for both tiles

alias Row = array<vec4<f32>, HS4>;

const B_TILE = TILE * HS4;  // where the second tile starts

var<workgroup> tiles: array<vec4<f32>, 2u * B_TILE>;  // rows of k and of v, or of q and of dout
var<workgroup> tile_s: array<vec2<f32>, TILE>;  // (lse, delta) of the queries
var<workgroup> given: array<vec4<f32>, 2u * ROWS>;  // P of four queries, for each key; two take turns

// Channels 4c .. 4c+3 of the head's row that starts at element `row`.
fn qkv_vector(row: u32, c: u32) -> vec4<f32> {
  let i = row + 4u * c;
  if (HS % 4u == 0u || c + 1u < HS4) {
    return vec4<f32>(vec4<qkv_type>(qkv[i], qkv[i + 1u], qkv[i + 2u], qkv[i + 3u]));
  }
  var v = vec4<f32>(f32(qkv[i]), 0.0, 0.0, 0.0);
  if (HS % 4u > 1u) { v.y = f32(qkv[i + 1u]); }
  if (HS % 4u > 2u) { v.z = f32(qkv[i + 2u]); }
  return v;
}

fn dout_vector(row: u32, c: u32) -> vec4<f32> {
  let i = row + 4u * c;
  if (HS % 4u == 0u || c + 1u < HS4) {
    return vec4<f32>(vec4<dout_type>(dout[i], dout[i + 1u], dout[i + 2u], dout[i + 3u]));
  }
  var v = vec4<f32>(f32(dout[i]), 0.0, 0.0, 0.0);
  if (HS % 4u > 1u) { v.y = f32(dout[i + 1u]); }
  if (HS % 4u > 2u) { v.z = f32(dout[i + 2u]); }
  return v;
}

fn store_gradient(row: u32, c: u32, value: vec4<f32>) {
  let i = row + 4u * c;
  let d = vec4<dqkv_type>(value);
  dqkv[i] = d.x;
  if (4u * c + 1u < HS) { dqkv[i + 1u] = d.y; }
  if (4u * c + 2u < HS) { dqkv[i + 2u] = d.z; }
  if (4u * c + 3u < HS) { dqkv[i + 3u] = d.w; }
}

// Keys and values of rows first .. first+TILE-1 of the head; `head` is the first element of its k in row 0.
fn load_keys_and_values(head: u32, first: u32, lane: u32) {
  for (var e = lane; e < TILE * HS4; e += ROWS) {
    let row = head + min(first + e / HS4, T - 1u) * 3u * C;
    tiles[e] = qkv_vector(row, e % HS4);
    tiles[B_TILE + e] = qkv_vector(row + C, e % HS4);
  }
}

// The same of q and dout, with lse and delta; `bh` counts heads.
fn load_queries(bh: u32, first: u32, lane: u32) {
  let row = bh / NH * T;
  let channel = bh % NH * HS;
  for (var e = lane; e < TILE * HS4; e += 2u * ROWS) {
    let t = row + min(first + e / HS4, T - 1u);
    tiles[e] = qkv_vector(t * 3u * C + channel, e % HS4);
    tiles[B_TILE + e] = dout_vector(t * C + channel, e % HS4);
  }
  if (lane < TILE) {
    let i = bh * T + min(first + lane, T - 1u);
    tile_s[lane] = vec2<f32>(kept[i], deltas[i]);
  }
}

fn dot(row: ptr<function, Row>, at: u32) -> f32 {
  var sum = vec4<f32>();
  for (var c = 0u; c < HS4; c++) {
    sum = fma((*row)[c], tiles[at + c], sum);
  }
  return (sum.x + sum.y) + (sum.z + sum.w);
}

// Products of `row` with four rows of a tile, from element `at` on
fn four_dots(row: ptr<function, Row>, at: u32) -> vec4<f32> {
  return vec4<f32>(dot(row, at), dot(row, at + HS4), dot(row, at + 2u * HS4), dot(row, at + 3u * HS4));
}

// row += Σ weights · four rows of a tile
fn add_four(row: ptr<function, Row>, weights: vec4<f32>, at: u32) {
  for (var c = 0u; c < HS4; c++) {
    var sum = fma(vec4<f32>(weights.x), tiles[at + c], (*row)[c]);
    sum = fma(vec4<f32>(weights.y), tiles[at + HS4 + c], sum);
    sum = fma(vec4<f32>(weights.z), tiles[at + 2u * HS4 + c], sum);
    (*row)[c] = fma(vec4<f32>(weights.w), tiles[at + 3u * HS4 + c], sum);
  }
}

// The first row of a workgroup where long rows come first, so that the last workgroups to start are the shortest
fn rows_from_last(group: u32) -> u32 {
  return ((T + ROWS - 1u) / ROWS - 1u - group) * ROWS;
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first_row = rows_from_last(group.x);
  let t = first_row + lane;
  let head = group.y / NH * T * 3u * C + group.y % NH * HS;
  var q: Row;
  var sum_v: Row;
  for (var c = 0u; c < HS4; c++) {
    q[c] = qkv_vector(head + min(t, T - 1u) * 3u * C, c) * SCALE;
    sum_v[c] = vec4<f32>();
  }
  var largest = -3.0e38;
  var sum = 0.0;
  for (var first = 0u; first < min(T, first_row + ROWS); first += TILE) {
    workgroupBarrier();
    load_keys_and_values(head + C, first, lane);
    workgroupBarrier();
    for (var j = 0u; j < TILE && first + j <= t; j += 4u) {
      let s = vec4<u32>(first + j) + vec4<u32>(0u, 1u, 2u, 3u);
      let scores = select(vec4<f32>(-3.0e38), four_dots(&q, j * HS4), s <= vec4<u32>(t));
      let new_largest = max(max(scores.x, scores.y), max(scores.z, scores.w));
      if (new_largest > largest) {
        let shrink = exp(largest - new_largest);
        sum *= shrink;
        for (var c = 0u; c < HS4; c++) {
          sum_v[c] *= shrink;
        }
        largest = new_largest;
      }
      let p = exp(scores - largest);
      sum += (p.x + p.y) + (p.z + p.w);
      add_four(&sum_v, p, B_TILE + j * HS4);
    }
  }
  if (t >= T) {
    return;
  }
  let to = (group.y / NH * T + t) * C + group.y % NH * HS;
  for (var c = 0u; c < HS4; c++) {
    let i = to + 4u * c;
    let value = vec4<out_type>(sum_v[c] / sum);
    out[i] = value.x;
    if (4u * c + 1u < HS) { out[i + 1u] = value.y; }
    if (4u * c + 2u < HS) { out[i + 2u] = value.z; }
    if (4u * c + 3u < HS) { out[i + 3u] = value.w; }
  }
  lse[group.y * T + t] = largest + log(sum);
}

@compute @workgroup_size(64)
fn backward_query(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first_row = rows_from_last(group.x);
  let t = first_row + lane;
  let row = group.y / NH * T + min(t, T - 1u);
  let channel = group.y % NH * HS;
  var q: Row;
  var d: Row;
  var dq: Row;
  for (var c = 0u; c < HS4; c++) {
    q[c] = qkv_vector(row * 3u * C + channel, c) * SCALE;
    d[c] = dout_vector(row * C + channel, c);
    dq[c] = vec4<f32>();
  }
  let own_lse = kept[group.y * T + min(t, T - 1u)];
  let own_delta = deltas[group.y * T + min(t, T - 1u)];
  for (var first = 0u; first < min(T, first_row + ROWS); first += TILE) {
    workgroupBarrier();
    load_keys_and_values(group.y / NH * T * 3u * C + channel + C, first, lane);
    workgroupBarrier();
    for (var j = 0u; j < TILE && first + j <= t; j += 4u) {
      let s = vec4<u32>(first + j) + vec4<u32>(0u, 1u, 2u, 3u);
      let scores = four_dots(&q, j * HS4);
      let dp = four_dots(&d, B_TILE + j * HS4);
      let p = select(vec4<f32>(), exp(scores - own_lse), s <= vec4<u32>(t));
      add_four(&dq, p * (dp - own_delta) * SCALE, j * HS4);
    }
  }
  for (var c = 0u; c < HS4; c++) {
    if (t < T) {
      store_gradient(row * 3u * C + channel, c, dq[c]);
    }
  }
}

// Threads 0 .. 63 make dv of 64 keys, threads 64 .. 127 dk of the same.
@compute @workgroup_size(128)
fn backward_key_value(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let key = lane % ROWS;
  let for_dk = lane / ROWS;
  let s = group.x * ROWS + key;
  let row = (group.y / NH * T + min(s, T - 1u)) * 3u * C + group.y % NH * HS + C;
  var own: Row;  // k, or v
  var sum: Row;  // dv, or dk
  for (var c = 0u; c < HS4; c++) {
    own[c] = qkv_vector(row + for_dk * C, c);
    sum[c] = vec4<f32>();
  }
  let multiplied = for_dk * B_TILE;  // k with q, v with dout
  let added = B_TILE - multiplied;  // dout to dv, q to dk
  for (var first = group.x * ROWS; first < T; first += TILE) {
    workgroupBarrier();
    load_queries(group.y, first, lane);
    workgroupBarrier();
    for (var j = 0u; j < TILE; j += 4u) {
      let turn = j / 4u % 2u * ROWS;
      let seen = first + j + 3u >= s && first + j < T;
      var weights = vec4<f32>();
      if (seen) {
        weights = four_dots(&own, multiplied + j * HS4);
        if (for_dk == 0u) {
          let t = vec4<u32>(first + j) + vec4<u32>(0u, 1u, 2u, 3u);
          let their_lse = vec4<f32>(tile_s[j].x, tile_s[j + 1u].x, tile_s[j + 2u].x, tile_s[j + 3u].x);
          let p = exp(weights * SCALE - their_lse);
          weights = select(vec4<f32>(), p, (t >= vec4<u32>(s)) & (t < vec4<u32>(T)));
          given[turn + key] = weights;
        }
      }
      workgroupBarrier();
      if (seen) {
        if (for_dk == 1u) {
          let delta = vec4<f32>(tile_s[j].y, tile_s[j + 1u].y, tile_s[j + 2u].y, tile_s[j + 3u].y);
          weights = given[turn + key] * (weights - delta) * SCALE;
        }
        add_four(&sum, weights, added + j * HS4);
      }
    }
  }
  for (var c = 0u; c < HS4; c++) {
    if (s < T) {
      store_gradient(row + C - for_dk * C, c, sum[c]);
    }
  }
}

// Causal self-attention as in attention.wgsl, tiled: a workgroup takes 64 rows of one head (queries, or for dk and
// dv keys) and brings the other rows (keys and values, or queries and dout) through workgroup memory, a tile at a
// time. Tiles above the diagonal are not visited, so workgroups are of unequal length: the long ones of all heads come
// first, that the last to start are the shortest.
//
// Four threads, a team, share four rows, and each has every fourth vector of them in registers, so that what it
// reads of a tile is multiplied with four rows. What the members make of four rows of the tile are shares of 4×4
// products: they meet in workgroup memory, where member i adds up those of row i, makes weights of them, and
// hands these to its team. In backward a second team has the same rows of another matrix: the products of q and
// k are the one's, those of dout and v the other's, and in turn they make weights of both.
//
// Reads and writes four channels at a time, so HS must be a multiple of 4.
//
// Constants: B T NH HS SCALE

@group(0) @binding(0) var<storage, read> qkv: array<vec4<qkv_type>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<out_type>>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
@group(0) @binding(3) var<storage, read> result: array<vec4<result_type>>;
@group(0) @binding(4) var<storage, read> kept: array<f32>;  // lse, read again
@group(0) @binding(5) var<storage, read> dout: array<vec4<dout_type>>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read> deltas: array<f32>;
@group(0) @binding(8) var<storage, read_write> dqkv: array<vec4<dqkv_type>>;

const HS4 = HS / 4u;  // a head's row in vectors
const C4 = NH * HS4;
const ROWS = 64u;
const QUARTER = (HS + 15u) / 16u;  // vectors of a row that a member has
const WIDTH = 4u * QUARTER;  // the same for a row of a tile, filled up with zeros
const EIGHTH = (WIDTH + 7u) / 8u;
const TILE = min(32u, 128u / WIDTH / 4u * 4u);  // rows of a tile: a multiple of 4, and at most 128 vectors
const B_TILE = TILE * WIDTH;  // where the second tile starts
const LOWEST = -3.0e38;

// What a member has of four rows: vector 4·c + member of row r at r·QUARTER + c
alias Four = array<vec4<f32>, 4u * QUARTER>;

var<workgroup> tiles: array<vec4<f32>, 2u * B_TILE>;  // rows of k and of v, or of q and of dout
var<workgroup> shares: array<vec4<f32>, 512>;  // [team of two][row of four][64 threads], see share_at
var<workgroup> weights: array<vec4<f32>, 128>;  // [2][64 rows]: what the rows of the tile are multiplied with

// Vector c of the head's row that starts at vector `row`
fn qkv_vector(row: u32, c: u32) -> vec4<f32> {
  return select(vec4<f32>(), vec4<f32>(qkv[row + min(c, HS4 - 1u)]), c < HS4);
}

fn dout_vector(row: u32, c: u32) -> vec4<f32> {
  return select(vec4<f32>(), vec4<f32>(dout[row + min(c, HS4 - 1u)]), c < HS4);
}

fn result_vector(row: u32, c: u32) -> vec4<f32> {
  return select(vec4<f32>(), vec4<f32>(result[row + min(c, HS4 - 1u)]), c < HS4);
}

// A vector of each of two tiles, on its way from memory while the tiles before are worked on
struct Pair {
  one: vec4<f32>,
  other: vec4<f32>,
}

// Vector e of tiles of keys and values from row `first` on; `head` is where the head's k of row 0 starts.
fn key_and_value(head: u32, first: u32, e: u32) -> Pair {
  let row = head + min(first + e / WIDTH, T - 1u) * 3u * C4;
  return Pair(qkv_vector(row, e % WIDTH), qkv_vector(row + C4, e % WIDTH));
}

// The same of q and dout; `bh` counts heads.
fn query_and_dout(bh: u32, first: u32, e: u32) -> Pair {
  let t = bh / NH * T + min(first + e / WIDTH, T - 1u);
  let start = bh % NH * HS4;
  return Pair(qkv_vector(t * 3u * C4 + start, e % WIDTH), dout_vector(t * C4 + start, e % WIDTH));
}

fn keep(e: u32, pair: Pair) {
  if (B_TILE == 128u || e < B_TILE) {
    tiles[e] = pair.one;
    tiles[B_TILE + e] = pair.other;
  }
}

fn plus_dot(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

fn plus_dots(s: vec4<f32>, a: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(plus_dot(s.x, a, b0), plus_dot(s.y, a, b1), plus_dot(s.z, a, b2), plus_dot(s.w, a, b3));
}

// Where a member's share of the products of the team's row r lies: so that neither those who write shares of the
// same row nor those who read shares of one member meet in a bank
fn share_at(r: u32, team: u32, member: u32) -> u32 {
  return r * 64u + team * 4u + (member ^ r);
}

// Puts a member's shares of the products of its four rows and four rows of a tile, those from element `at` on.
fn put_shares(half: u32, team: u32, member: u32, own: ptr<function, Four>, at: u32) {
  var s0 = vec4<f32>();
  var s1 = vec4<f32>();
  var s2 = vec4<f32>();
  var s3 = vec4<f32>();
  for (var c = 0u; c < QUARTER; c++) {
    let i = at + 4u * c + member;
    let b0 = tiles[i];
    let b1 = tiles[i + WIDTH];
    let b2 = tiles[i + 2u * WIDTH];
    let b3 = tiles[i + 3u * WIDTH];
    s0 = plus_dots(s0, (*own)[c], b0, b1, b2, b3);
    s1 = plus_dots(s1, (*own)[QUARTER + c], b0, b1, b2, b3);
    s2 = plus_dots(s2, (*own)[2u * QUARTER + c], b0, b1, b2, b3);
    s3 = plus_dots(s3, (*own)[3u * QUARTER + c], b0, b1, b2, b3);
  }
  shares[half * 256u + share_at(0u, team, member)] = s0;
  shares[half * 256u + share_at(1u, team, member)] = s1;
  shares[half * 256u + share_at(2u, team, member)] = s2;
  shares[half * 256u + share_at(3u, team, member)] = s3;
}

// The products of the team's row r and four rows of a tile
fn sum_of_shares(half: u32, team: u32, r: u32) -> vec4<f32> {
  let at = half * 256u;
  return (shares[at + share_at(r, team, 0u)] + shares[at + share_at(r, team, 1u)])
    + (shares[at + share_at(r, team, 2u)] + shares[at + share_at(r, team, 3u)]);
}

// sum + Σ weights · four vectors of a tile, one below the other from element `at` on
fn plus_weighted(sum: vec4<f32>, w: vec4<f32>, at: u32) -> vec4<f32> {
  var s = fma(vec4<f32>(w.x), tiles[at], sum);
  s = fma(vec4<f32>(w.y), tiles[at + WIDTH], s);
  s = fma(vec4<f32>(w.z), tiles[at + 2u * WIDTH], s);
  return fma(vec4<f32>(w.w), tiles[at + 3u * WIDTH], s);
}

// sums += Σ weights · four rows of a tile, those from element `at` on; the team's weights start at `rows`.
fn add_weighted(sums: ptr<function, Four>, rows: u32, member: u32, at: u32) {
  let w0 = weights[rows];
  let w1 = weights[rows + 1u];
  let w2 = weights[rows + 2u];
  let w3 = weights[rows + 3u];
  for (var c = 0u; c < QUARTER; c++) {
    let to = at + 4u * c + member;
    (*sums)[c] = plus_weighted((*sums)[c], w0, to);
    (*sums)[QUARTER + c] = plus_weighted((*sums)[QUARTER + c], w1, to);
    (*sums)[2u * QUARTER + c] = plus_weighted((*sums)[2u * QUARTER + c], w2, to);
    (*sums)[3u * QUARTER + c] = plus_weighted((*sums)[3u * QUARTER + c], w3, to);
  }
}

fn four(first: u32) -> vec4<u32> {
  return first + vec4<u32>(0u, 1u, 2u, 3u);
}

// The first row of a workgroup where long rows come first
fn rows_from_last(group: u32) -> u32 {
  return ((T + ROWS - 1u) / ROWS - 1u - group) * ROWS;
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_row = rows_from_last(group.y);
  let end = min(T, first_row + ROWS);
  let team = thread / 4u;
  let member = thread % 4u;
  let row = first_row + 4u * team;  // the team's first
  let t = row + member;  // the row that this thread makes weights of
  let head = group.x / NH * T * 3u * C4 + group.x % NH * HS4;
  var q: Four;
  var sum_v: Four;
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < QUARTER; c++) {
      q[r * QUARTER + c] = qkv_vector(head + min(row + r, T - 1u) * 3u * C4, 4u * c + member) * SCALE;
    }
  }
  var largest = LOWEST;
  var sum = 0.0;
  var next = key_and_value(head + C4, 0u, thread);
  var more = key_and_value(head + C4, 0u, thread + 64u);
  for (var first = 0u; first < end; first += TILE) {
    workgroupBarrier();
    keep(thread, next);
    keep(thread + 64u, more);
    workgroupBarrier();
    next = key_and_value(head + C4, first + TILE, thread);
    more = key_and_value(head + C4, first + TILE, thread + 64u);
    for (var j = 0u; j < TILE && first + j < end; j += 4u) {
      let seen = first + j < row + 4u;
      if (seen) {
        put_shares(0u, team, member, &q, j * WIDTH);
      }
      workgroupBarrier();
      let scores = select(vec4<f32>(LOWEST), sum_of_shares(0u, team, member), four(first + j) <= vec4<u32>(t));
      let new_largest = max(largest, max(max(scores.x, scores.y), max(scores.z, scores.w)));
      let shrink = exp(largest - new_largest);
      let p = exp(scores - new_largest);
      largest = new_largest;
      sum = sum * shrink + ((p.x + p.y) + (p.z + p.w));
      weights[thread] = p;
      weights[64u + team][member] = shrink;
      workgroupBarrier();
      if (seen) {
        let shrinks = weights[64u + team];
        if (any(shrinks < vec4<f32>(1.0))) {
          for (var c = 0u; c < QUARTER; c++) {
            sum_v[c] *= shrinks.x;
            sum_v[QUARTER + c] *= shrinks.y;
            sum_v[2u * QUARTER + c] *= shrinks.z;
            sum_v[3u * QUARTER + c] *= shrinks.w;
          }
        }
        add_weighted(&sum_v, 4u * team, member, B_TILE + j * WIDTH);
      }
    }
  }
  workgroupBarrier();
  weights[64u + team][member] = sum;
  workgroupBarrier();
  let whole = 1.0 / weights[64u + team];
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < QUARTER; c++) {
      if (row + r < T && 4u * c + member < HS4) {
        let to = (group.x / NH * T + row + r) * C4 + group.x % NH * HS4;
        out[to + 4u * c + member] = vec4<out_type>(sum_v[r * QUARTER + c] * whole[r]);
      }
    }
  }
  if (t < T) {
    lse[group.x * T + t] = largest + log(sum);
  }
}

// Threads 0 .. 63 have q, threads 64 .. 127 dout of the same rows; of dq, each of a row's eight has an eighth.
@compute @workgroup_size(128)
fn backward_query(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_row = rows_from_last(group.y);
  let end = min(T, first_row + ROWS);
  let half = thread / 64u;
  let team = thread % 64u / 4u;
  let member = thread % 4u;
  let row = first_row + 4u * team;
  let t = row + member;
  let batch = group.x / NH * T;
  let start = group.x % NH * HS4;
  var own: Four;
  var dq: array<vec4<f32>, 4u * EIGHTH>;
  for (var r = 0u; r < 4u; r++) {
    let here = batch + min(row + r, T - 1u);
    for (var c = 0u; c < QUARTER; c++) {
      if (half == 0u) {
        own[r * QUARTER + c] = qkv_vector(here * 3u * C4 + start, 4u * c + member) * SCALE;
      } else {
        own[r * QUARTER + c] = dout_vector(here * C4 + start, 4u * c + member);
      }
    }
  }
  let own_lse = kept[group.x * T + min(t, T - 1u)];
  var products_with_out = vec4<f32>();  // a share of delta of each of the team's rows, where `own` is dout
  for (var r = 0u; r < 4u; r++) {
    let here = (batch + min(row + r, T - 1u)) * C4 + start;
    for (var c = 0u; c < QUARTER; c++) {
      products_with_out[r] = plus_dot(products_with_out[r], own[r * QUARTER + c], result_vector(here, 4u * c + member));
    }
  }
  shares[thread] = products_with_out;
  workgroupBarrier();
  let at = 64u + 4u * team;
  let own_delta = (shares[at][member] + shares[at + 1u][member])
    + (shares[at + 2u][member] + shares[at + 3u][member]);
  if (half == 1u && t < T) {
    delta[group.x * T + t] = own_delta;
  }
  let part = half * 4u + member;  // of eight vectors of dq
  var next = key_and_value(batch * 3u * C4 + start + C4, 0u, thread);
  for (var first = 0u; first < end; first += TILE) {
    workgroupBarrier();
    keep(thread, next);
    workgroupBarrier();
    next = key_and_value(batch * 3u * C4 + start + C4, first + TILE, thread);
    for (var j = 0u; j < TILE && first + j < end; j += 4u) {
      let seen = first + j < row + 4u;
      if (seen) {
        put_shares(half, team, member, &own, half * B_TILE + j * WIDTH);
      }
      workgroupBarrier();
      if (half == j / 4u % 2u) {
        let p = exp(sum_of_shares(0u, team, member) - own_lse);
        let ds = p * (sum_of_shares(1u, team, member) - own_delta) * SCALE;
        weights[thread % 64u] = select(vec4<f32>(), ds, four(first + j) <= vec4<u32>(t));
      }
      workgroupBarrier();
      if (seen) {
        for (var c = 0u; c < EIGHTH; c++) {
          let at = j * WIDTH + min(8u * c + part, WIDTH - 1u);
          for (var r = 0u; r < 4u; r++) {
            dq[r * EIGHTH + c] = plus_weighted(dq[r * EIGHTH + c], weights[4u * team + r], at);
          }
        }
      }
    }
  }
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < EIGHTH; c++) {
      if (row + r < T && 8u * c + part < HS4) {
        dqkv[(batch + row + r) * 3u * C4 + start + 8u * c + part] = vec4<dqkv_type>(dq[r * EIGHTH + c]);
      }
    }
  }
}

// Threads 0 .. 63 have k and make dv of 64 keys, threads 64 .. 127 have v and make dk of the same.
@compute @workgroup_size(128)
fn backward_key_value(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let half = thread / 64u;
  let team = thread % 64u / 4u;
  let member = thread % 4u;
  let row = group.y * ROWS + 4u * team;
  let s = row + member;
  let batch = group.x / NH * T;
  let start = group.x % NH * HS4;
  var own: Four;
  var sums: Four;
  for (var r = 0u; r < 4u; r++) {
    let here = (batch + min(row + r, T - 1u)) * 3u * C4 + start + (1u + half) * C4;
    for (var c = 0u; c < QUARTER; c++) {
      own[r * QUARTER + c] = qkv_vector(here, 4u * c + member);
    }
  }
  var next = query_and_dout(group.x, group.y * ROWS, thread);
  for (var first = group.y * ROWS; first < T; first += TILE) {
    workgroupBarrier();
    keep(thread, next);
    workgroupBarrier();
    next = query_and_dout(group.x, first + TILE, thread);
    for (var j = 0u; j < TILE && first + j < T; j += 4u) {
      let seen = first + j + 3u >= row;
      if (seen) {
        put_shares(half, team, member, &own, half * B_TILE + j * WIDTH);
      }
      workgroupBarrier();
      if (half == j / 4u % 2u) {
        let t = four(first + j);
        let i = group.x * T + min(t, vec4<u32>(T - 1u));
        let their_lse = vec4<f32>(kept[i.x], kept[i.y], kept[i.z], kept[i.w]);
        let their_delta = vec4<f32>(deltas[i.x], deltas[i.y], deltas[i.z], deltas[i.w]);
        let sees = (t >= vec4<u32>(s)) & (t < vec4<u32>(T));
        let p = select(vec4<f32>(), exp(sum_of_shares(0u, team, member) * SCALE - their_lse), sees);
        let ds = p * (sum_of_shares(1u, team, member) - their_delta) * SCALE;
        weights[thread % 64u] = p;
        weights[64u + thread % 64u] = select(vec4<f32>(), ds, sees);
      }
      workgroupBarrier();
      if (seen) {
        add_weighted(&sums, half * 64u + 4u * team, member, (1u - half) * B_TILE + j * WIDTH);
      }
    }
  }
  for (var r = 0u; r < 4u; r++) {
    let to = (batch + row + r) * 3u * C4 + start + (2u - half) * C4;
    for (var c = 0u; c < QUARTER; c++) {
      if (row + r < T && 4u * c + member < HS4) {
        dqkv[to + 4u * c + member] = vec4<dqkv_type>(sums[r * QUARTER + c]);
      }
    }
  }
}

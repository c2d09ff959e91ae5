// Causal self-attention as in attention_tiled.wgsl, where the threads of a team hand each other numbers by shuffles
// within a subgroup: there are no barriers but around the tiles.
//
// A team of eight threads in a row has four rows of a head: queries, or for dk and dv keys. Each member has every
// eighth vector of these rows in registers, and reads the same vectors of eight rows of a tile, so it makes a share of
// 4×8 products. To sum up, a member gives away half of its shares to the member across and adds what it is given to
// the other half, until each has the whole products of one row with four of the eight. It makes weights of them, and
// hands these to its team.
//
// That takes no choices, because each member has the four rows in an order of its own: at place r lies row r ^ member.
// What a member has at places 0 and 1, the one across, member ^ 2, has at places 2 and 3. In the same way the upper
// four of eight members have the upper four of eight rows of a tile first: theirs are `near`, the others `far`.
// backward_query takes four rows of a tile at a time, of which it keeps k for dq, and a member makes two weights.
//
// Reads and writes four channels at a time, so HS must be a multiple of 4; of more than 64, a member would have more
// vectors than a GPU has registers.
//
// Constants: B T NH HS SCALE

@group(0) @binding(0) var<storage, read> qkv: array<vec4<qkv_type>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<out_type>>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
@group(0) @binding(3) var<storage, read> result: array<vec4<result_type>>;  // out, read again
@group(0) @binding(4) var<storage, read> kept: array<f32>;  // lse, read again
@group(0) @binding(5) var<storage, read> dout: array<vec4<dout_type>>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;
@group(0) @binding(7) var<storage, read> deltas: array<f32>;  // delta, read again
@group(0) @binding(8) var<storage, read_write> dqkv: array<vec4<dqkv_type>>;

const HS4 = HS / 4u;  // a head's row in vectors
const C4 = NH * HS4;
const THREADS = 128u;
const ROWS = 64u;  // of a workgroup
const EIGHTH = (HS4 + 7u) / 8u;  // vectors of a row that a member has
const WIDTH = 8u * EIGHTH;  // a row of a tile, filled up with zeros
const TILE = 32u;  // rows of a tile
const B_TILE = TILE * WIDTH;  // where the second tile starts
const LOWEST = -3.0e38;
const SLACK = 8.0;  // how far a score may lie above what exponents are relative to

// What a member has of four rows: vector 8·c + member of the row at place r is at r·EIGHTH + c.
alias Four = array<vec4<f32>, 4u * EIGHTH>;

var<workgroup> tiles: array<vec4<f32>, 2u * B_TILE>;  // rows of k and of v, or of q and of dout

// Vector c of the head's row that starts at vector `row`, zeros behind its end
fn qkv_vector(row: u32, c: u32) -> vec4<f32> {
  if (WIDTH == HS4 || c < HS4) {
    return vec4<f32>(qkv[row + c]);
  }
  return vec4<f32>();
}

fn dout_vector(row: u32, c: u32) -> vec4<f32> {
  if (WIDTH == HS4 || c < HS4) {
    return vec4<f32>(dout[row + c]);
  }
  return vec4<f32>();
}

fn result_vector(row: u32, c: u32) -> vec4<f32> {
  if (WIDTH == HS4 || c < HS4) {
    return vec4<f32>(result[row + c]);
  }
  return vec4<f32>();
}

// Fills the tiles with rows of keys and values, from row `first` on; `head` is where the head's k of row 0 starts.
fn bring_keys_and_values(head: u32, first: u32, thread: u32) {
  workgroupBarrier();
  for (var e = thread; e < TILE * WIDTH; e += THREADS) {
    let row = head + min(first + e / WIDTH, T - 1u) * 3u * C4;
    tiles[e] = qkv_vector(row, e % WIDTH);
    tiles[B_TILE + e] = qkv_vector(row + C4, e % WIDTH);
  }
  workgroupBarrier();
}

// The same with queries and dout, of head `start` / HS4 of the batch that starts at row `batch`
fn bring_queries_and_douts(batch: u32, start: u32, first: u32, thread: u32) {
  workgroupBarrier();
  for (var e = thread; e < TILE * WIDTH; e += THREADS) {
    let row = batch + min(first + e / WIDTH, T - 1u);
    tiles[e] = qkv_vector(row * 3u * C4 + start, e % WIDTH);
    tiles[B_TILE + e] = dout_vector(row * C4 + start, e % WIDTH);
  }
  workgroupBarrier();
}

fn plus_dot(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

// s + the products of a vector of a row and those of four rows of a tile
fn plus_dots(s: vec4<f32>, a: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(plus_dot(s.x, a, b0), plus_dot(s.y, a, b1), plus_dot(s.z, a, b2), plus_dot(s.w, a, b3));
}

// sum + Σ weights · vectors of four rows of a tile
fn plus_weighted(
  sum: vec4<f32>, w: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>
) -> vec4<f32> {
  let s = fma(vec4<f32>(w.y), b1, fma(vec4<f32>(w.x), b0, sum));
  return fma(vec4<f32>(w.w), b3, fma(vec4<f32>(w.z), b2, s));
}

// The products of the member's own row and its four of eight rows of a tile. Its vectors of those four start at `near`,
// of the other four at `far`.
fn products(own: ptr<function, Four>, near: u32, far: u32) -> vec4<f32> {
  var s = array<vec4<f32>, 4>();  // by place
  var o = array<vec4<f32>, 4>();  // the same with the far rows
  for (var c = 0u; c < EIGHTH; c++) {
    let n = near + 8u * c;
    let f = far + 8u * c;
    let n0 = tiles[n];
    let n1 = tiles[n + WIDTH];
    let n2 = tiles[n + 2u * WIDTH];
    let n3 = tiles[n + 3u * WIDTH];
    let f0 = tiles[f];
    let f1 = tiles[f + WIDTH];
    let f2 = tiles[f + 2u * WIDTH];
    let f3 = tiles[f + 3u * WIDTH];
    for (var r = 0u; r < 4u; r++) {
      s[r] = plus_dots(s[r], (*own)[r * EIGHTH + c], n0, n1, n2, n3);
      o[r] = plus_dots(o[r], (*own)[r * EIGHTH + c], f0, f1, f2, f3);
    }
  }
  for (var r = 0u; r < 4u; r++) {
    s[r] += subgroupShuffleXor(o[r], 4u);
  }
  let t0 = s[0] + subgroupShuffleXor(s[2], 2u);
  let t1 = s[1] + subgroupShuffleXor(s[3], 2u);
  return t0 + subgroupShuffleXor(t1, 1u);
}

// The same of two rows of a tile, from a member's shares of the products with four; the near two come first.
fn products_of_two(s: array<vec4<f32>, 4>) -> vec2<f32> {
  let t0 = s[0].xy + subgroupShuffleXor(s[0].zw, 4u);
  let t1 = s[1].xy + subgroupShuffleXor(s[1].zw, 4u);
  let t2 = s[2].xy + subgroupShuffleXor(s[2].zw, 4u);
  let t3 = s[3].xy + subgroupShuffleXor(s[3].zw, 4u);
  let u0 = t0 + subgroupShuffleXor(t2, 2u);
  let u1 = t1 + subgroupShuffleXor(t3, 2u);
  return u0 + subgroupShuffleXor(u1, 1u);
}

// The weights of all four rows, by place, from those of each member's own row
fn all_of_four(own: vec4<f32>) -> array<vec4<f32>, 4> {
  return array<vec4<f32>, 4>(
    own,
    subgroupShuffleXor(own, 1u),
    subgroupShuffleXor(own, 2u),
    subgroupShuffleXor(own, 3u),
  );
}

// sums += Σ weights · eight rows of a tile; a member brings the weights that it made of its `products`.
fn add_weighted(sums: ptr<function, Four>, weights: vec4<f32>, near: u32, far: u32) {
  var w = all_of_four(weights);
  var o = all_of_four(subgroupShuffleXor(weights, 4u));  // of the far rows
  for (var c = 0u; c < EIGHTH; c++) {
    let n = near + 8u * c;
    let f = far + 8u * c;
    let n0 = tiles[n];
    let n1 = tiles[n + WIDTH];
    let n2 = tiles[n + 2u * WIDTH];
    let n3 = tiles[n + 3u * WIDTH];
    let f0 = tiles[f];
    let f1 = tiles[f + WIDTH];
    let f2 = tiles[f + 2u * WIDTH];
    let f3 = tiles[f + 3u * WIDTH];
    for (var r = 0u; r < 4u; r++) {
      let i = r * EIGHTH + c;
      (*sums)[i] = plus_weighted(plus_weighted((*sums)[i], w[r], n0, n1, n2, n3), o[r], f0, f1, f2, f3);
    }
  }
}

fn four(first: u32) -> vec4<u32> {
  return first + vec4<u32>(0u, 1u, 2u, 3u);
}

// The first row of a workgroup where long rows come first
fn rows_from_last(group: u32) -> u32 {
  return ((T + ROWS - 1u) / ROWS - 1u - group) * ROWS;
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_row = rows_from_last(group.y);
  let end = min(T, first_row + ROWS);
  let member = thread % 8u;
  let upper = member / 4u * 4u;  // its first row of eight of a tile
  let t = first_row + thread / 8u * 4u + member % 4u;
  let last = subgroupMax(t);
  let head = group.x / NH * T * 3u * C4 + group.x % NH * HS4;
  var q: Four;
  var sum_v: Four;
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < EIGHTH; c++) {
      q[r * EIGHTH + c] = qkv_vector(head + min(t ^ r, T - 1u) * 3u * C4, 8u * c + member) * SCALE;
    }
  }
  var largest = LOWEST;
  var sum = 0.0;  // of the weights that this thread makes
  for (var first = 0u; first < end; first += TILE) {
    bring_keys_and_values(head + C4, first, thread);
    let count = min(TILE, max(last + 1u, first) - first);  // of keys that the subgroup's rows see
    for (var j = 0u; j < count; j += 8u) {
      let near = (j + upper) * WIDTH + member;
      let far = (j + 4u - upper) * WIDTH + member;
      let seen = four(first + j + upper) <= vec4<u32>(t);
      let scores = select(vec4<f32>(LOWEST), products(&q, near, far), seen);
      let most = max(max(scores.x, scores.y), max(scores.z, scores.w));
      if (subgroupAny(most > largest + SLACK)) {
        let new_largest = max(largest, max(most, subgroupShuffleXor(most, 4u)));
        let shrink = exp(largest - new_largest);
        largest = new_largest;
        sum *= shrink;
        for (var r = 0u; r < 4u; r++) {
          let f = subgroupShuffleXor(shrink, r);
          for (var c = 0u; c < EIGHTH; c++) {
            sum_v[r * EIGHTH + c] *= f;
          }
        }
      }
      let p = exp(scores - largest);
      sum += (p.x + p.y) + (p.z + p.w);
      add_weighted(&sum_v, p, B_TILE + near, B_TILE + far);
    }
  }
  sum += subgroupShuffleXor(sum, 4u);
  for (var r = 0u; r < 4u; r++) {
    let whole = 1.0 / subgroupShuffleXor(sum, r);
    for (var c = 0u; c < EIGHTH; c++) {
      if ((t ^ r) < T && 8u * c + member < HS4) {
        let to = (group.x / NH * T + (t ^ r)) * C4 + group.x % NH * HS4;
        out[to + 8u * c + member] = vec4<out_type>(sum_v[r * EIGHTH + c] * whole);
      }
    }
  }
  if (member < 4u && t < T) {
    lse[group.x * T + t] = largest + log(sum);
  }
}

@compute @workgroup_size(THREADS)
fn backward_query(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_row = rows_from_last(group.y);
  let end = min(T, first_row + ROWS);
  let member = thread % 8u;
  let upper = member / 4u * 2u;  // its first row of four of a tile
  let t = first_row + thread / 8u * 4u + member % 4u;
  let last = subgroupMax(t);
  let batch = group.x / NH * T;
  let start = group.x % NH * HS4;
  var q: Four;
  var d: Four;
  var dq: Four;
  var o = vec4<f32>();  // shares of the four rows' delta, by place
  for (var r = 0u; r < 4u; r++) {
    let row = batch + min(t ^ r, T - 1u);
    for (var c = 0u; c < EIGHTH; c++) {
      let i = r * EIGHTH + c;
      q[i] = qkv_vector(row * 3u * C4 + start, 8u * c + member) * SCALE;
      d[i] = dout_vector(row * C4 + start, 8u * c + member);
      o[r] = plus_dot(o[r], d[i], result_vector(row * C4 + start, 8u * c + member));
    }
  }
  o += subgroupShuffleXor(o, 4u);
  let halves = o.xy + subgroupShuffleXor(o.zw, 2u);
  let own_delta = halves.x + subgroupShuffleXor(halves.y, 1u);
  if (member < 4u && t < T) {
    delta[group.x * T + t] = own_delta;
  }
  let own_lse = kept[group.x * T + min(t, T - 1u)];
  for (var first = 0u; first < end; first += TILE) {
    bring_keys_and_values(batch * 3u * C4 + start + C4, first, thread);
    let count = min(TILE, max(last + 1u, first) - first);  // of keys that the subgroup's rows see
    for (var j = 0u; j < count; j += 4u) {
      var s = array<vec4<f32>, 4>();
      var p = array<vec4<f32>, 4>();
      var k: array<vec4<f32>, 4u * EIGHTH>;
      for (var c = 0u; c < EIGHTH; c++) {
        let near = (j + upper) * WIDTH + 8u * c + member;
        let far = (j + 2u - upper) * WIDTH + 8u * c + member;
        k[4u * c] = tiles[near];
        k[4u * c + 1u] = tiles[near + WIDTH];
        k[4u * c + 2u] = tiles[far];
        k[4u * c + 3u] = tiles[far + WIDTH];
        let v0 = tiles[B_TILE + near];
        let v1 = tiles[B_TILE + near + WIDTH];
        let v2 = tiles[B_TILE + far];
        let v3 = tiles[B_TILE + far + WIDTH];
        for (var r = 0u; r < 4u; r++) {
          s[r] = plus_dots(s[r], q[r * EIGHTH + c], k[4u * c], k[4u * c + 1u], k[4u * c + 2u], k[4u * c + 3u]);
          p[r] = plus_dots(p[r], d[r * EIGHTH + c], v0, v1, v2, v3);
        }
      }
      let weight = exp(products_of_two(s) - own_lse);
      let dweight = products_of_two(p) - own_delta;
      let seen = first + j + upper + vec2<u32>(0u, 1u) <= vec2<u32>(t);
      let own = select(vec2<f32>(), weight * dweight * SCALE, seen);
      var ds = all_of_four(vec4<f32>(own, subgroupShuffleXor(own, 4u)));
      for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < EIGHTH; c++) {
          let i = r * EIGHTH + c;
          dq[i] = plus_weighted(dq[i], ds[r], k[4u * c], k[4u * c + 1u], k[4u * c + 2u], k[4u * c + 3u]);
        }
      }
    }
  }
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < EIGHTH; c++) {
      if ((t ^ r) < T && 8u * c + member < HS4) {
        dqkv[(batch + (t ^ r)) * 3u * C4 + start + 8u * c + member] = vec4<dqkv_type>(dq[r * EIGHTH + c]);
      }
    }
  }
}

@compute @workgroup_size(THREADS)
fn backward_key_value(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let member = thread % 8u;
  let upper = member / 4u * 4u;
  let s = group.y * ROWS + thread / 8u * 4u + member % 4u;
  let lowest = subgroupMin(s) / 8u * 8u;
  let batch = group.x / NH * T;
  let start = group.x % NH * HS4;
  var k: Four;
  var v: Four;
  var dk: Four;
  var dv: Four;
  for (var r = 0u; r < 4u; r++) {
    let row = (batch + min(s ^ r, T - 1u)) * 3u * C4 + start + C4;
    for (var c = 0u; c < EIGHTH; c++) {
      k[r * EIGHTH + c] = qkv_vector(row, 8u * c + member) * SCALE;
      v[r * EIGHTH + c] = qkv_vector(row + C4, 8u * c + member);
    }
  }
  for (var first = group.y * ROWS; first < T; first += TILE) {
    bring_queries_and_douts(batch, start, first, thread);
    let count = min(TILE, T - first);
    for (var j = max(lowest, first) - first; j < count; j += 8u) {  // from the first that sees the subgroup's rows
      let near = (j + upper) * WIDTH + member;
      let far = (j + 4u - upper) * WIDTH + member;
      let t = four(first + j + upper);
      let i = group.x * T + min(t, vec4<u32>(T - 1u));
      let sees = (t >= vec4<u32>(s)) & (t < vec4<u32>(T));
      let their_lse = vec4<f32>(kept[i.x], kept[i.y], kept[i.z], kept[i.w]);
      let their_delta = vec4<f32>(deltas[i.x], deltas[i.y], deltas[i.z], deltas[i.w]);
      let weight = select(vec4<f32>(), exp(products(&k, near, far) - their_lse), sees);
      let dweight = products(&v, B_TILE + near, B_TILE + far) - their_delta;
      add_weighted(&dv, weight, B_TILE + near, B_TILE + far);
      add_weighted(&dk, select(vec4<f32>(), weight * dweight * SCALE, sees), near, far);
    }
  }
  for (var r = 0u; r < 4u; r++) {
    let to = (batch + (s ^ r)) * 3u * C4 + start + C4;
    for (var c = 0u; c < EIGHTH; c++) {
      if ((s ^ r) < T && 8u * c + member < HS4) {
        dqkv[to + 8u * c + member] = vec4<dqkv_type>(dk[r * EIGHTH + c]);
        dqkv[to + C4 + 8u * c + member] = vec4<dqkv_type>(dv[r * EIGHTH + c]);
      }
    }
  }
}

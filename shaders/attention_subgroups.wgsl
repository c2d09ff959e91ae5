// Causal self-attention as in attention_tiled.wgsl, where the threads of a team hand each other numbers by shuffles
// within a subgroup: there are no barriers but around the tiles.
//
// A team has four rows of a head, queries or for dk and dv keys: in forward it is four threads in a row, in backward
// eight. Each has every fourth (eighth) vector of these rows in registers, and reads the same vectors of four rows of
// a tile, so it makes a share of 4×4 products. To sum up, a member gives away half of its shares to the member across
// and adds what it is given to the other half, until each has the whole products of its own row (in backward, of two
// rows of the tile). It makes weights of them, and hands these to its team.
//
// That takes no choices, because each member has the four rows in an order of its own: at place r lies row r ^ member.
// What a member has at places 0 and 1, the one across, member ^ 2, has at places 2 and 3. In the same way the upper
// four of eight have the four rows of a tile in the order 2, 3, 0, 1.
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
const FORWARD_ROWS = 128u;  // of a workgroup in forward
const ROWS = 64u;  // and in backward
const EIGHTH = (HS4 + 7u) / 8u;  // vectors of a row that a member of eight has
const QUARTER = 2u * EIGHTH;  // and a member of four
const WIDTH = 8u * EIGHTH;  // a row of a tile, filled up with zeros
const TILE = 32u;  // rows of a tile
const LOWEST = -3.0e38;
const SLACK = 8.0;  // how far a score may lie above what exponents are relative to

var<workgroup> a_tile: array<vec4<f32>, TILE * WIDTH>;  // rows of k or q
var<workgroup> b_tile: array<vec4<f32>, TILE * WIDTH>;  // the same rows of v or dout

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
    a_tile[e] = qkv_vector(row, e % WIDTH);
    b_tile[e] = qkv_vector(row + C4, e % WIDTH);
  }
  workgroupBarrier();
}

// The same with queries and dout, of head `start` / HS4 of the batch that starts at row `batch`
fn bring_queries_and_douts(batch: u32, start: u32, first: u32, thread: u32) {
  workgroupBarrier();
  for (var e = thread; e < TILE * WIDTH; e += THREADS) {
    let row = batch + min(first + e / WIDTH, T - 1u);
    a_tile[e] = qkv_vector(row * 3u * C4 + start, e % WIDTH);
    b_tile[e] = dout_vector(row * C4 + start, e % WIDTH);
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

// From a member's shares of the products of four rows, by place, to the whole products of its own row
fn sum_of_four(s: array<vec4<f32>, 4>) -> vec4<f32> {
  let t0 = s[0] + subgroupShuffleXor(s[2], 2u);
  let t1 = s[1] + subgroupShuffleXor(s[3], 2u);
  return t0 + subgroupShuffleXor(t1, 1u);
}

// The same among eight: products with the two rows of a tile that come first in the member's order
fn sum_of_eight(s: array<vec4<f32>, 4>) -> vec2<f32> {
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

fn all_of_eight(own: vec2<f32>) -> array<vec4<f32>, 4> {
  return all_of_four(vec4<f32>(own, subgroupShuffleXor(own, 4u)));
}

// The first row of a workgroup that takes `rows` of them, where long rows come first
fn rows_from_last(group: u32, rows: u32) -> u32 {
  return ((T + rows - 1u) / rows - 1u - group) * rows;
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_row = rows_from_last(group.y, FORWARD_ROWS);
  let end = min(T, first_row + FORWARD_ROWS);
  let member = thread % 4u;
  let t = first_row + thread;  // the row that this thread makes weights of
  let last = subgroupMax(t);
  let head = group.x / NH * T * 3u * C4 + group.x % NH * HS4;
  var q: array<vec4<f32>, 4u * QUARTER>;
  var sum_v: array<vec4<f32>, 4u * QUARTER>;
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < QUARTER; c++) {
      q[r * QUARTER + c] = qkv_vector(head + min(t ^ r, T - 1u) * 3u * C4, 4u * c + member) * SCALE;
    }
  }
  var largest = LOWEST;
  var sum = 0.0;
  for (var first = 0u; first < end; first += TILE) {
    bring_keys_and_values(head + C4, first, thread);
    let count = min(TILE, max(last + 1u, first) - first);  // of keys that the subgroup's rows see
    for (var j = 0u; j < count; j += 4u) {
      var s = array<vec4<f32>, 4>();
      for (var c = 0u; c < QUARTER; c++) {
        let i = j * WIDTH + 4u * c + member;
        let k0 = a_tile[i];
        let k1 = a_tile[i + WIDTH];
        let k2 = a_tile[i + 2u * WIDTH];
        let k3 = a_tile[i + 3u * WIDTH];
        for (var r = 0u; r < 4u; r++) {
          s[r] = plus_dots(s[r], q[r * QUARTER + c], k0, k1, k2, k3);
        }
      }
      let seen = first + j + vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(t);
      let scores = select(vec4<f32>(LOWEST), sum_of_four(s), seen);
      let most = max(max(scores.x, scores.y), max(scores.z, scores.w));
      if (subgroupAny(most > largest + SLACK)) {
        let new_largest = max(largest, most);
        let shrink = exp(largest - new_largest);
        largest = new_largest;
        sum *= shrink;
        for (var r = 0u; r < 4u; r++) {
          let f = subgroupShuffleXor(shrink, r);
          for (var c = 0u; c < QUARTER; c++) {
            sum_v[r * QUARTER + c] *= f;
          }
        }
      }
      let own = exp(scores - largest);
      sum += (own.x + own.y) + (own.z + own.w);
      var p = all_of_four(own);
      for (var c = 0u; c < QUARTER; c++) {
        let i = j * WIDTH + 4u * c + member;
        let v0 = b_tile[i];
        let v1 = b_tile[i + WIDTH];
        let v2 = b_tile[i + 2u * WIDTH];
        let v3 = b_tile[i + 3u * WIDTH];
        for (var r = 0u; r < 4u; r++) {
          sum_v[r * QUARTER + c] = plus_weighted(sum_v[r * QUARTER + c], p[r], v0, v1, v2, v3);
        }
      }
    }
  }
  for (var r = 0u; r < 4u; r++) {
    let whole = 1.0 / subgroupShuffleXor(sum, r);
    for (var c = 0u; c < QUARTER; c++) {
      if ((t ^ r) < T && 4u * c + member < HS4) {
        let to = (group.x / NH * T + (t ^ r)) * C4 + group.x % NH * HS4;
        out[to + 4u * c + member] = vec4<out_type>(sum_v[r * QUARTER + c] * whole);
      }
    }
  }
  if (t < T) {
    lse[group.x * T + t] = largest + log(sum);
  }
}

@compute @workgroup_size(THREADS)
fn backward_query(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_row = rows_from_last(group.y, ROWS);
  let end = min(T, first_row + ROWS);
  let member = thread % 8u;
  let upper = member / 4u * 2u;  // its first row of four of a tile
  let t = first_row + thread / 8u * 4u + member % 4u;
  let last = subgroupMax(t);
  let batch = group.x / NH * T;
  let start = group.x % NH * HS4;
  var q: array<vec4<f32>, 4u * EIGHTH>;
  var d: array<vec4<f32>, 4u * EIGHTH>;
  var dq: array<vec4<f32>, 4u * EIGHTH>;
  var o = array<vec4<f32>, 4>();  // shares of delta, of which there is one number a row
  for (var r = 0u; r < 4u; r++) {
    let row = batch + min(t ^ r, T - 1u);
    for (var c = 0u; c < EIGHTH; c++) {
      q[r * EIGHTH + c] = qkv_vector(row * 3u * C4 + start, 8u * c + member) * SCALE;
      d[r * EIGHTH + c] = dout_vector(row * C4 + start, 8u * c + member);
      o[r].x = plus_dot(o[r].x, d[r * EIGHTH + c], result_vector(row * C4 + start, 8u * c + member));
    }
  }
  let of_four = sum_of_four(o).x;
  let own_delta = of_four + subgroupShuffleXor(of_four, 4u);
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
        k[4u * c] = a_tile[near];
        k[4u * c + 1u] = a_tile[near + WIDTH];
        k[4u * c + 2u] = a_tile[far];
        k[4u * c + 3u] = a_tile[far + WIDTH];
        let v0 = b_tile[near];
        let v1 = b_tile[near + WIDTH];
        let v2 = b_tile[far];
        let v3 = b_tile[far + WIDTH];
        for (var r = 0u; r < 4u; r++) {
          s[r] = plus_dots(s[r], q[r * EIGHTH + c], k[4u * c], k[4u * c + 1u], k[4u * c + 2u], k[4u * c + 3u]);
          p[r] = plus_dots(p[r], d[r * EIGHTH + c], v0, v1, v2, v3);
        }
      }
      let weight = exp(sum_of_eight(s) - own_lse);
      let dweight = sum_of_eight(p) - own_delta;
      let seen = first + j + upper + vec2<u32>(0u, 1u) <= vec2<u32>(t);
      var ds = all_of_eight(select(vec2<f32>(), weight * dweight * SCALE, seen));
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
  let upper = member / 4u * 2u;
  let s = group.y * ROWS + thread / 8u * 4u + member % 4u;
  let lowest = subgroupMin(s);
  let batch = group.x / NH * T;
  let start = group.x % NH * HS4;
  var k: array<vec4<f32>, 4u * EIGHTH>;
  var v: array<vec4<f32>, 4u * EIGHTH>;
  var dk: array<vec4<f32>, 4u * EIGHTH>;
  var dv: array<vec4<f32>, 4u * EIGHTH>;
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
    for (var j = max(lowest, first) - first; j < count; j += 4u) {  // from the first that sees the subgroup's rows
      var a = array<vec4<f32>, 4>();
      var b = array<vec4<f32>, 4>();
      var q: array<vec4<f32>, 4u * EIGHTH>;
      var d: array<vec4<f32>, 4u * EIGHTH>;
      for (var c = 0u; c < EIGHTH; c++) {
        let near = (j + upper) * WIDTH + 8u * c + member;
        let far = (j + 2u - upper) * WIDTH + 8u * c + member;
        q[4u * c] = a_tile[near];
        q[4u * c + 1u] = a_tile[near + WIDTH];
        q[4u * c + 2u] = a_tile[far];
        q[4u * c + 3u] = a_tile[far + WIDTH];
        d[4u * c] = b_tile[near];
        d[4u * c + 1u] = b_tile[near + WIDTH];
        d[4u * c + 2u] = b_tile[far];
        d[4u * c + 3u] = b_tile[far + WIDTH];
        for (var r = 0u; r < 4u; r++) {
          a[r] = plus_dots(a[r], k[r * EIGHTH + c], q[4u * c], q[4u * c + 1u], q[4u * c + 2u], q[4u * c + 3u]);
          b[r] = plus_dots(b[r], v[r * EIGHTH + c], d[4u * c], d[4u * c + 1u], d[4u * c + 2u], d[4u * c + 3u]);
        }
      }
      let t = first + j + upper + vec2<u32>(0u, 1u);
      let i = group.x * T + min(t, vec2<u32>(T - 1u));
      let sees = (t >= vec2<u32>(s)) & (t < vec2<u32>(T));
      let weight = exp(sum_of_eight(a) - vec2<f32>(kept[i.x], kept[i.y]));
      let dweight = sum_of_eight(b) - vec2<f32>(deltas[i.x], deltas[i.y]);
      var p = all_of_eight(select(vec2<f32>(), weight, sees));
      var ds = all_of_eight(select(vec2<f32>(), weight * dweight * SCALE, sees));
      for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < EIGHTH; c++) {
          let i = r * EIGHTH + c;
          dv[i] = plus_weighted(dv[i], p[r], d[4u * c], d[4u * c + 1u], d[4u * c + 2u], d[4u * c + 3u]);
          dk[i] = plus_weighted(dk[i], ds[r], q[4u * c], q[4u * c + 1u], q[4u * c + 2u], q[4u * c + 3u]);
        }
      }
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

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
// For dq, a team takes four rows of a tile at a time, of which it keeps k, and a member makes two weights.
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
@group(0) @binding(6) var<storage, read_write> delta: array<vec4<f32>>;  // a workgroup's own: of a tile's rows
@group(0) @binding(8) var<storage, read_write> dqkv: array<vec4<dqkv_type>>;
@group(0) @binding(9) var<storage, read_write> sums: array<vec4<f32>>;

const HS4 = HS / 4u;  // a head's row in vectors
const C4 = NH * HS4;
const THREADS = 128u;
const ROWS = 64u;  // of a workgroup: with 32, MEDIUM's backward takes 11% longer, and forward 5% less
const EIGHTH = (HS4 + 7u) / 8u;  // vectors of a row that a member has
const LENGTH = 8u * EIGHTH;  // a row of a tile, filled up with zeros
const TILE = 32u;  // rows of a tile
const B_TILE = TILE * LENGTH;  // where the second tile starts
const LOWEST = -3.0e38;
const SLACK = 8.0;  // how far a score may lie above what exponents are relative to

// What a member has of four rows: vector 8·c + member of the row at place r is at r·EIGHTH + c.
alias Four = array<vec4<f32>, 4u * EIGHTH>;

var<workgroup> tiles: array<vec4<f32>, 2u * B_TILE>;  // rows of k and of v, or of q and of dout

// Vector c of the head's row that starts at vector `row`, zeros behind its end
fn qkv_vector(row: u32, c: u32) -> vec4<f32> {
  if (LENGTH == HS4 || c < HS4) {
    return vec4<f32>(qkv[row + c]);
  }
  return vec4<f32>();
}

fn dout_vector(row: u32, c: u32) -> vec4<f32> {
  if (LENGTH == HS4 || c < HS4) {
    return vec4<f32>(dout[row + c]);
  }
  return vec4<f32>();
}

fn result_vector(row: u32, c: u32) -> vec4<f32> {
  if (LENGTH == HS4 || c < HS4) {
    return vec4<f32>(result[row + c]);
  }
  return vec4<f32>();
}

// Fills the tiles with rows of keys and values, from row `first` on; `head` is where the head's k of row 0 starts.
fn bring_keys_and_values(head: u32, first: u32, thread: u32) {
  workgroupBarrier();
  for (var e = thread; e < TILE * LENGTH; e += THREADS) {
    let row = head + min(first + e / LENGTH, T - 1u) * 3u * C4;
    tiles[e] = qkv_vector(row, e % LENGTH);
    tiles[B_TILE + e] = qkv_vector(row + C4, e % LENGTH);
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
    let n1 = tiles[n + LENGTH];
    let n2 = tiles[n + 2u * LENGTH];
    let n3 = tiles[n + 3u * LENGTH];
    let f0 = tiles[f];
    let f1 = tiles[f + LENGTH];
    let f2 = tiles[f + 2u * LENGTH];
    let f3 = tiles[f + 3u * LENGTH];
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

// The weights of all four rows, by place, from those of each member's own row
fn all_of_four(own: vec4<f32>) -> array<vec4<f32>, 4> {
  return array<vec4<f32>, 4>(
    own,
    subgroupShuffleXor(own, 1u),
    subgroupShuffleXor(own, 2u),
    subgroupShuffleXor(own, 3u),
  );
}

// total += Σ weights · eight rows of a tile; a member brings the weights that it made of its `products`.
fn add_weighted(total: ptr<function, Four>, weights: vec4<f32>, near: u32, far: u32) {
  var w = all_of_four(weights);
  var o = all_of_four(subgroupShuffleXor(weights, 4u));  // of the far rows
  for (var c = 0u; c < EIGHTH; c++) {
    let n = near + 8u * c;
    let f = far + 8u * c;
    let n0 = tiles[n];
    let n1 = tiles[n + LENGTH];
    let n2 = tiles[n + 2u * LENGTH];
    let n3 = tiles[n + 3u * LENGTH];
    let f0 = tiles[f];
    let f1 = tiles[f + LENGTH];
    let f2 = tiles[f + 2u * LENGTH];
    let f3 = tiles[f + 3u * LENGTH];
    for (var r = 0u; r < 4u; r++) {
      let i = r * EIGHTH + c;
      (*total)[i] = plus_weighted(plus_weighted((*total)[i], w[r], n0, n1, n2, n3), o[r], f0, f1, f2, f3);
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
      let near = (j + upper) * LENGTH + member;
      let far = (j + 4u - upper) * LENGTH + member;
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

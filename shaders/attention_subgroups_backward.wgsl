// The backward part of attention_subgroups.wgsl, in one dispatch: workgroups that make dk and dv fill the processors that
// those that make dq leave idle (MEDIUM takes 1.5% less, SMALL 7%). The former make Σ dout · out themselves, since no
// workgroup waits for another.
//
// If SUM_ROWS, which takes a T in whole blocks, all sum up their rows, too, for the gradient of qkv's bias: each PART of
// the B · T rows, 4 to ROWS, into a row of sums.
//
// Constants: B T NH HS SCALE, SUM_ROWS, PART, and STRIDE and WIDTH of sums, of which those behind 3C become 0

// Fills the tiles with rows of queries and of dout, of head `start` / HS4 of the batch that starts at row `batch`. The
// rows' Σ dout · out go to `delta`, from vector `to` on. All threads take as many turns, seen by a compiler, too:
// NVIDIA's makes shuffles slow in a kernel of which it does not know that (backward takes 1.4 times as long).
fn bring_queries_and_douts(batch: u32, start: u32, first: u32, thread: u32, to: u32) {
  storageBarrier();
  workgroupBarrier();
  let member = thread % 8u;
  for (var turn = 0u; turn < TILE; turn += THREADS / 8u) {
    let r = turn + thread / 8u;
    let row = batch + min(first + r, T - 1u);
    var product = 0.0;
    for (var j = 0u; j < EIGHTH; j++) {
      let c = 8u * j + member;
      let d = dout_vector(row * C4 + start, c);
      tiles[r * LENGTH + c] = qkv_vector(row * 3u * C4 + start, c);
      tiles[B_TILE + r * LENGTH + c] = d;
      product = plus_dot(product, d, result_vector(row * C4 + start, c));
    }
    product += subgroupShuffleXor(product, 4u);
    product += subgroupShuffleXor(product, 2u);
    product += subgroupShuffleXor(product, 1u);
    if (member == 0u) {
      delta[to + r / 4u][r % 4u] = product;
    }
  }
  storageBarrier();
  workgroupBarrier();
}

// The products of the member's own row and its two of four rows of a tile, from its shares; the near two come first.
fn products_of_two(s: array<vec4<f32>, 4>) -> vec2<f32> {
  let t0 = s[0].xy + subgroupShuffleXor(s[0].zw, 4u);
  let t1 = s[1].xy + subgroupShuffleXor(s[1].zw, 4u);
  let t2 = s[2].xy + subgroupShuffleXor(s[2].zw, 4u);
  let t3 = s[3].xy + subgroupShuffleXor(s[3].zw, 4u);
  let u0 = t0 + subgroupShuffleXor(t2, 2u);
  let u1 = t1 + subgroupShuffleXor(t3, 2u);
  return u0 + subgroupShuffleXor(u1, 1u);
}

// Sums up a workgroup's rows, of which each team has four, to vector `to` of sums, and below it for each further `part`.
fn sum_rows(rows: ptr<function, Four>, to: u32, stride: u32, part: u32, thread: u32) {
  workgroupBarrier();
  for (var c = 0u; c < EIGHTH; c++) {
    let sum = ((*rows)[c] + (*rows)[EIGHTH + c]) + ((*rows)[2u * EIGHTH + c] + (*rows)[3u * EIGHTH + c]);
    tiles[thread / 8u * LENGTH + 8u * c + thread % 8u] = sum;
  }
  workgroupBarrier();
  let p = thread / HS4;
  let c = thread % HS4;
  if (p < ROWS / part) {
    let first = p * (part / 4u);  // of the part's teams
    var sum = vec4<f32>();
    for (var team = first; team < first + part / 4u; team++) {
      sum += tiles[team * LENGTH + c];
    }
    sums[to + p * stride + c] = sum;
  }
}

// dq of a block of head h of the B · NH
fn make_dq(dq: ptr<function, Four>, h: u32, first_row: u32, thread: u32) {
  let end = min(T, first_row + ROWS);
  let member = thread % 8u;
  let upper = member / 4u * 2u;  // its first row of four of a tile
  let t = first_row + thread / 8u * 4u + member % 4u;
  let last = subgroupMax(t);
  let batch = h / NH * T;
  let start = h % NH * HS4;
  var q: Four;
  var d: Four;
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
  let own_lse = kept[h * T + min(t, T - 1u)];
  for (var first = 0u; first < end; first += TILE) {
    bring_keys_and_values(batch * 3u * C4 + start + C4, first, thread);
    let count = min(TILE, max(last + 1u, first) - first);  // of keys that the subgroup's rows see
    for (var j = 0u; j < count; j += 4u) {
      var s = array<vec4<f32>, 4>();
      var p = array<vec4<f32>, 4>();
      var k: array<vec4<f32>, 4u * EIGHTH>;
      for (var c = 0u; c < EIGHTH; c++) {
        let near = (j + upper) * LENGTH + 8u * c + member;
        let far = (j + 2u - upper) * LENGTH + 8u * c + member;
        k[4u * c] = tiles[near];
        k[4u * c + 1u] = tiles[near + LENGTH];
        k[4u * c + 2u] = tiles[far];
        k[4u * c + 3u] = tiles[far + LENGTH];
        let v0 = tiles[B_TILE + near];
        let v1 = tiles[B_TILE + near + LENGTH];
        let v2 = tiles[B_TILE + far];
        let v3 = tiles[B_TILE + far + LENGTH];
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
          (*dq)[i] = plus_weighted((*dq)[i], ds[r], k[4u * c], k[4u * c + 1u], k[4u * c + 2u], k[4u * c + 3u]);
        }
      }
    }
  }
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < EIGHTH; c++) {
      if ((t ^ r) < T && 8u * c + member < HS4) {
        dqkv[(batch + (t ^ r)) * 3u * C4 + start + 8u * c + member] = vec4<dqkv_type>((*dq)[r * EIGHTH + c]);
      }
    }
  }
}

// dk and dv of a block of keys
fn make_dk_and_dv(dk: ptr<function, Four>, dv: ptr<function, Four>, h: u32, first_row: u32, thread: u32) {
  let member = thread % 8u;
  let upper = member / 4u * 4u;
  let own_delta = (first_row / ROWS * B * NH + h) * (TILE / 4u);
  let s = first_row + thread / 8u * 4u + member % 4u;
  let lowest = subgroupMin(s) / 8u * 8u;
  let batch = h / NH * T;
  let start = h % NH * HS4;
  var k: Four;
  var v: Four;
  for (var r = 0u; r < 4u; r++) {
    let row = (batch + min(s ^ r, T - 1u)) * 3u * C4 + start + C4;
    for (var c = 0u; c < EIGHTH; c++) {
      k[r * EIGHTH + c] = qkv_vector(row, 8u * c + member) * SCALE;
      v[r * EIGHTH + c] = qkv_vector(row + C4, 8u * c + member);
    }
  }
  for (var first = first_row; first < T; first += TILE) {
    bring_queries_and_douts(batch, start, first, thread, own_delta);
    let count = min(TILE, T - first);
    for (var j = max(lowest, first) - first; j < count; j += 8u) {  // from the first that sees the subgroup's rows
      let near = (j + upper) * LENGTH + member;
      let far = (j + 4u - upper) * LENGTH + member;
      let t = four(first + j + upper);
      let i = h * T + min(t, vec4<u32>(T - 1u));
      let sees = (t >= vec4<u32>(s)) & (t < vec4<u32>(T));
      let their_lse = vec4<f32>(kept[i.x], kept[i.y], kept[i.z], kept[i.w]);
      let their_delta = delta[own_delta + (j + upper) / 4u];
      let weight = select(vec4<f32>(), exp(products(&k, near, far) - their_lse), sees);
      let dweight = products(&v, B_TILE + near, B_TILE + far) - their_delta;
      add_weighted(dv, weight, B_TILE + near, B_TILE + far);
      add_weighted(dk, select(vec4<f32>(), weight * dweight * SCALE, sees), near, far);
    }
  }
  for (var r = 0u; r < 4u; r++) {
    let to = (batch + (s ^ r)) * 3u * C4 + start + C4;
    for (var c = 0u; c < EIGHTH; c++) {
      if ((s ^ r) < T && 8u * c + member < HS4) {
        dqkv[to + 8u * c + member] = vec4<dqkv_type>((*dk)[r * EIGHTH + c]);
        dqkv[to + C4 + 8u * c + member] = vec4<dqkv_type>((*dv)[r * EIGHTH + c]);
      }
    }
  }
}

// In one dispatch, workgroups of each part fill the processors that the other leaves idle. Long rows first: the first
// keys, which all queries see, and the last queries, which see all keys.
@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  const STEP = STRIDE / 4u;
  let block = group.y / 2u;
  let head = group.x % NH;
  if (group.y % 2u == 0u) {
    var dk: Four;
    var dv: Four;
    make_dk_and_dv(&dk, &dv, group.x, block * ROWS, thread);
    if (SUM_ROWS) {
      let to = (group.x / NH * T + block * ROWS) / PART * STEP + C4 + head * HS4;
      sum_rows(&dk, to, STEP, PART, thread);
      sum_rows(&dv, to + C4, STEP, PART, thread);
    }
  } else {
    var dq: Four;
    let first_row = rows_from_last(block);
    make_dq(&dq, group.x, first_row, thread);
    if (SUM_ROWS) {
      let to = (group.x / NH * T + first_row) / PART * STEP;
      sum_rows(&dq, to + head * HS4, STEP, PART, thread);
      for (var p = head; p < ROWS / PART; p += NH) {
        for (var c = 3u * C4 + thread; c < WIDTH / 4u; c += THREADS) {
          sums[to + p * STEP + c] = vec4<f32>();
        }
      }
    }
  }
}

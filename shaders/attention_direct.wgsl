// Causal self-attention as in attention.wgsl, with a block of 4 queries and 4 keys in the registers of one thread, no
// workgroup memory and no barrier: the fastest on software renderers, where barriers are dear and every read is
// paid for. A row that is read serves four products.
//
// Reads and writes four channels at a time, so HS must be a multiple of 4. Rows beyond T are computed from the
// last one, count for nothing, and are not stored.
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

const HS4 = HS / 4u;
const C4 = NH * HS4;
const BLOCKS = (T + 3u) / 4u;  // of four rows
const NONE = -3.0e38;

// Where rows t .. t+3 of a head (b·NH + h) start, `width` vectors being a row of all heads.
fn rows(head: u32, t: u32, width: u32) -> vec4<u32> {
  let row = min(vec4<u32>(t) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(T - 1u));
  return ((head / NH) * T + row) * width + (head % NH) * HS4;
}

// [r][j] = row r of `a` · row j of `b`, rows of qkv
fn products(a: vec4<u32>, b: vec4<u32>) -> mat4x4<f32> {
  var s0 = vec4<f32>(); var s1 = vec4<f32>(); var s2 = vec4<f32>(); var s3 = vec4<f32>();
  for (var c = 0u; c < HS4; c++) {
    let b0 = vec4<f32>(qkv[b.x + c]);
    let b1 = vec4<f32>(qkv[b.y + c]);
    let b2 = vec4<f32>(qkv[b.z + c]);
    let b3 = vec4<f32>(qkv[b.w + c]);
    let a0 = vec4<f32>(qkv[a.x + c]);
    let a1 = vec4<f32>(qkv[a.y + c]);
    let a2 = vec4<f32>(qkv[a.z + c]);
    let a3 = vec4<f32>(qkv[a.w + c]);
    s0 += vec4<f32>(dot(a0, b0), dot(a0, b1), dot(a0, b2), dot(a0, b3));
    s1 += vec4<f32>(dot(a1, b0), dot(a1, b1), dot(a1, b2), dot(a1, b3));
    s2 += vec4<f32>(dot(a2, b0), dot(a2, b1), dot(a2, b2), dot(a2, b3));
    s3 += vec4<f32>(dot(a3, b0), dot(a3, b1), dot(a3, b2), dot(a3, b3));
  }
  return mat4x4<f32>(s0, s1, s2, s3);
}

// [r][j] = row r of dout, from `a` on, · row j of qkv, from `b` on
fn dout_products(a: vec4<u32>, b: vec4<u32>) -> mat4x4<f32> {
  var s0 = vec4<f32>(); var s1 = vec4<f32>(); var s2 = vec4<f32>(); var s3 = vec4<f32>();
  for (var c = 0u; c < HS4; c++) {
    let b0 = vec4<f32>(qkv[b.x + c]);
    let b1 = vec4<f32>(qkv[b.y + c]);
    let b2 = vec4<f32>(qkv[b.z + c]);
    let b3 = vec4<f32>(qkv[b.w + c]);
    let a0 = vec4<f32>(dout[a.x + c]);
    let a1 = vec4<f32>(dout[a.y + c]);
    let a2 = vec4<f32>(dout[a.z + c]);
    let a3 = vec4<f32>(dout[a.w + c]);
    s0 += vec4<f32>(dot(a0, b0), dot(a0, b1), dot(a0, b2), dot(a0, b3));
    s1 += vec4<f32>(dot(a1, b0), dot(a1, b1), dot(a1, b2), dot(a1, b3));
    s2 += vec4<f32>(dot(a2, b0), dot(a2, b1), dot(a2, b2), dot(a2, b3));
    s3 += vec4<f32>(dot(a3, b0), dot(a3, b1), dot(a3, b2), dot(a3, b3));
  }
  return mat4x4<f32>(s0, s1, s2, s3);
}

// SCALE · scores of queries t .. t+3 with keys s .. s+3, NONE where a key comes after its query.
fn masked(scores: mat4x4<f32>, t: u32, s: u32) -> mat4x4<f32> {
  let scaled = scores * SCALE;
  if (s < t) {
    return scaled;
  }
  let none = vec4<f32>(NONE);
  return mat4x4<f32>(
    select(none, scaled[0], vec4<bool>(true, false, false, false)),
    select(none, scaled[1], vec4<bool>(true, true, false, false)),
    select(none, scaled[2], vec4<bool>(true, true, true, false)),
    scaled[3],
  );
}

fn max_of(v: vec4<f32>) -> f32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}

fn sum_of(v: vec4<f32>) -> f32 {
  return v.x + v.y + v.z + v.w;
}

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= B * NH * BLOCKS) {
    return;
  }
  let t = 4u * (id.x % BLOCKS);
  let head = id.x / BLOCKS;
  let queries = rows(head, t, 3u * C4);
  var sums: array<vec4<f32>, HS>;  // [c][r]
  for (var i = 0u; i < HS; i++) {
    sums[i] = vec4<f32>();
  }
  var largest = vec4<f32>(NONE);
  var sum = vec4<f32>();
  for (var s = 0u; s <= t; s += 4u) {
    let keys = rows(head, s, 3u * C4) + C4;
    let scores = masked(products(queries, keys), t, s);
    let before = largest;
    largest = max(
      before, vec4<f32>(max_of(scores[0]), max_of(scores[1]), max_of(scores[2]), max_of(scores[3]))
    );
    let shrink = exp(before - largest);
    let p0 = exp(scores[0] - largest.x);
    let p1 = exp(scores[1] - largest.y);
    let p2 = exp(scores[2] - largest.z);
    let p3 = exp(scores[3] - largest.w);
    sum = sum * shrink + vec4<f32>(sum_of(p0), sum_of(p1), sum_of(p2), sum_of(p3));
    let values = keys + C4;
    for (var c = 0u; c < HS4; c++) {
      let v = mat4x4<f32>(
        vec4<f32>(qkv[values.x + c]),
        vec4<f32>(qkv[values.y + c]),
        vec4<f32>(qkv[values.z + c]),
        vec4<f32>(qkv[values.w + c]),
      );
      sums[4u * c] = sums[4u * c] * shrink.x + v * p0;
      sums[4u * c + 1u] = sums[4u * c + 1u] * shrink.y + v * p1;
      sums[4u * c + 2u] = sums[4u * c + 2u] * shrink.z + v * p2;
      sums[4u * c + 3u] = sums[4u * c + 3u] * shrink.w + v * p3;
    }
  }
  let to = rows(head, t, C4);
  for (var r = 0u; r < min(4u, T - t); r++) {
    for (var c = 0u; c < HS4; c++) {
      out[to[r] + c] = vec4<out_type>(sums[4u * c + r] / sum[r]);
    }
    lse[head * T + t + r] = largest[r] + log(sum[r]);
  }
}

// Four numbers of queries t .. t+3
fn of_queries(head: u32, t: u32) -> vec4<u32> {
  return head * T + min(vec4<u32>(t) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(T - 1u));
}

@compute @workgroup_size(64)
fn backward_query(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= B * NH * BLOCKS) {
    return;
  }
  let t = 4u * (id.x % BLOCKS);
  let head = id.x / BLOCKS;
  let queries = rows(head, t, 3u * C4);
  let from_out = rows(head, t, C4);
  let at = of_queries(head, t);
  var dq: array<vec4<f32>, HS>;  // [c][r]
  var own = vec4<f32>();  // delta
  for (var c = 0u; c < HS4; c++) {
    for (var r = 0u; r < 4u; r++) {
      dq[4u * c + r] = vec4<f32>();
      own[r] += dot(vec4<f32>(result[from_out[r] + c]), vec4<f32>(dout[from_out[r] + c]));
    }
  }
  for (var s = 0u; s <= t; s += 4u) {
    let keys = rows(head, s, 3u * C4) + C4;
    let scores = masked(products(queries, keys), t, s);
    let dp = dout_products(from_out, keys + C4);
    let ds0 = exp(scores[0] - kept[at.x]) * (dp[0] - own.x) * SCALE;
    let ds1 = exp(scores[1] - kept[at.y]) * (dp[1] - own.y) * SCALE;
    let ds2 = exp(scores[2] - kept[at.z]) * (dp[2] - own.z) * SCALE;
    let ds3 = exp(scores[3] - kept[at.w]) * (dp[3] - own.w) * SCALE;
    for (var c = 0u; c < HS4; c++) {
      let k = mat4x4<f32>(
        vec4<f32>(qkv[keys.x + c]),
        vec4<f32>(qkv[keys.y + c]),
        vec4<f32>(qkv[keys.z + c]),
        vec4<f32>(qkv[keys.w + c]),
      );
      dq[4u * c] += k * ds0;
      dq[4u * c + 1u] += k * ds1;
      dq[4u * c + 2u] += k * ds2;
      dq[4u * c + 3u] += k * ds3;
    }
  }
  for (var r = 0u; r < min(4u, T - t); r++) {
    delta[at[r]] = own[r];
    for (var c = 0u; c < HS4; c++) {
      dqkv[queries[r] + c] = vec4<dqkv_type>(dq[4u * c + r]);
    }
  }
}

@compute @workgroup_size(64)
fn backward_key_value(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= B * NH * BLOCKS) {
    return;
  }
  let s = 4u * (id.x % BLOCKS);
  let head = id.x / BLOCKS;
  let keys = rows(head, s, 3u * C4) + C4;
  let values = keys + C4;
  var dk: array<vec4<f32>, HS>;  // [c][j]
  var dv: array<vec4<f32>, HS>;
  for (var i = 0u; i < HS; i++) {
    dk[i] = vec4<f32>();
    dv[i] = vec4<f32>();
  }
  for (var t = s; t < T; t += 4u) {
    let queries = rows(head, t, 3u * C4);
    let from_out = rows(head, t, C4);
    let at = of_queries(head, t);
    let scores = masked(products(queries, keys), t, s);
    let dp = dout_products(from_out, values);
    let seen = select(vec4<f32>(), vec4<f32>(1.0), vec4<u32>(t) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(T));
    let p = mat4x4<f32>(
      exp(scores[0] - kept[at.x]) * seen.x,
      exp(scores[1] - kept[at.y]) * seen.y,
      exp(scores[2] - kept[at.z]) * seen.z,
      exp(scores[3] - kept[at.w]) * seen.w,
    );
    let p_t = transpose(p);
    let ds_t = transpose(mat4x4<f32>(
      p[0] * (dp[0] - deltas[at.x]) * SCALE,
      p[1] * (dp[1] - deltas[at.y]) * SCALE,
      p[2] * (dp[2] - deltas[at.z]) * SCALE,
      p[3] * (dp[3] - deltas[at.w]) * SCALE,
    ));
    for (var c = 0u; c < HS4; c++) {
      let q = mat4x4<f32>(
        vec4<f32>(qkv[queries.x + c]),
        vec4<f32>(qkv[queries.y + c]),
        vec4<f32>(qkv[queries.z + c]),
        vec4<f32>(qkv[queries.w + c]),
      );
      let d = mat4x4<f32>(
        vec4<f32>(dout[from_out.x + c]),
        vec4<f32>(dout[from_out.y + c]),
        vec4<f32>(dout[from_out.z + c]),
        vec4<f32>(dout[from_out.w + c]),
      );
      dk[4u * c] += q * ds_t[0];
      dk[4u * c + 1u] += q * ds_t[1];
      dk[4u * c + 2u] += q * ds_t[2];
      dk[4u * c + 3u] += q * ds_t[3];
      dv[4u * c] += d * p_t[0];
      dv[4u * c + 1u] += d * p_t[1];
      dv[4u * c + 2u] += d * p_t[2];
      dv[4u * c + 3u] += d * p_t[3];
    }
  }
  for (var j = 0u; j < min(4u, T - s); j++) {
    for (var c = 0u; c < HS4; c++) {
      dqkv[keys[j] + c] = vec4<dqkv_type>(dk[4u * c + j]);
      dqkv[values[j] + c] = vec4<dqkv_type>(dv[4u * c + j]);
    }
  }
}

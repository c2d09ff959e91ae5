// Causal self-attention that never holds a T×T matrix. The naive variant: one thread a row.
//
//   qkv (B, T, 3C) holds q, k and v side by side; head h uses channels h·HS .. h·HS+HS-1 of each.
//   out (B, T, C): out[t] = Σ_{s ≤ t} softmax_s(q[t]·k[s] · SCALE) v[s]
//   lse (B, NH, T): log Σ_s exp(q[t]·k[s] · SCALE), kept for the backward pass
//
// Forward keeps a running maximum and sum (Milakov and Gimelshein, arXiv 1805.02867; as in FlashAttention,
// arXiv 2205.14135). Backward computes the probabilities again, P = exp(q·k·SCALE - lse), and with
// delta[t] = out[t]·dout[t], which backward_query makes for backward_key_value as well:
//   dS = P ∘ (dout vᵀ - delta);  dq = SCALE · dS k;  dk = SCALE · dSᵀ q;  dv = Pᵀ dout
//
// Constants: B T NH HS SCALE

@group(0) @binding(0) var<storage, read> qkv: array<qkv_type>;
@group(0) @binding(1) var<storage, read_write> out: array<out_type>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
@group(0) @binding(3) var<storage, read> result: array<result_type>;  // out, read again
@group(0) @binding(4) var<storage, read> kept: array<f32>;  // lse, read again
@group(0) @binding(5) var<storage, read> dout: array<dout_type>;
@group(0) @binding(6) var<storage, read_write> delta: array<f32>;  // (B, NH, T)
@group(0) @binding(7) var<storage, read> deltas: array<f32>;  // delta, read again
@group(0) @binding(8) var<storage, read_write> dqkv: array<dqkv_type>;

const C = NH * HS;

// Row of the thread: i = (b·NH + h)·T + t
fn channel_of(i: u32, t: u32, width: u32) -> u32 {
  let h = (i / T) % NH;
  let b = i / (T * NH);
  return (b * T + t) * width + h * HS;
}

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= B * NH * T) {
    return;
  }
  let t = i % T;
  let row = channel_of(i, t, 3u * C);
  var q: array<f32, HS>;
  var sum_v: array<f32, HS>;
  for (var c = 0u; c < HS; c++) {
    q[c] = f32(qkv[row + c]) * SCALE;
    sum_v[c] = 0.0;
  }
  var largest = -3.0e38;
  var sum = 0.0;
  for (var s = 0u; s <= t; s++) {
    let key = channel_of(i, s, 3u * C) + C;
    var score = 0.0;
    for (var c = 0u; c < HS; c++) {
      score = fma(q[c], f32(qkv[key + c]), score);
    }
    if (score > largest) {
      let shrink = exp(largest - score);
      sum *= shrink;
      for (var c = 0u; c < HS; c++) {
        sum_v[c] *= shrink;
      }
      largest = score;
    }
    let p = exp(score - largest);
    sum += p;
    for (var c = 0u; c < HS; c++) {
      sum_v[c] = fma(p, f32(qkv[key + C + c]), sum_v[c]);
    }
  }
  let to = channel_of(i, t, C);
  for (var c = 0u; c < HS; c++) {
    out[to + c] = out_type(sum_v[c] / sum);
  }
  lse[i] = largest + log(sum);
}

@compute @workgroup_size(64)
fn backward_query(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= B * NH * T) {
    return;
  }
  let t = i % T;
  let row = channel_of(i, t, 3u * C);
  let from_out = channel_of(i, t, C);
  var q: array<f32, HS>;
  var d: array<f32, HS>;
  var dq: array<f32, HS>;
  var own_delta = 0.0;
  for (var c = 0u; c < HS; c++) {
    q[c] = f32(qkv[row + c]) * SCALE;
    d[c] = f32(dout[from_out + c]);
    dq[c] = 0.0;
    own_delta = fma(f32(result[from_out + c]), d[c], own_delta);
  }
  delta[i] = own_delta;
  for (var s = 0u; s <= t; s++) {
    let key = channel_of(i, s, 3u * C) + C;
    var score = 0.0;
    var dp = 0.0;
    for (var c = 0u; c < HS; c++) {
      score = fma(q[c], f32(qkv[key + c]), score);
      dp = fma(d[c], f32(qkv[key + C + c]), dp);
    }
    let ds = exp(score - kept[i]) * (dp - own_delta) * SCALE;
    for (var c = 0u; c < HS; c++) {
      dq[c] = fma(ds, f32(qkv[key + c]), dq[c]);
    }
  }
  for (var c = 0u; c < HS; c++) {
    dqkv[row + c] = dqkv_type(dq[c]);
  }
}

@compute @workgroup_size(64)
fn backward_key_value(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= B * NH * T) {
    return;
  }
  let s = i % T;
  let key = channel_of(i, s, 3u * C) + C;
  var k: array<f32, HS>;
  var v: array<f32, HS>;
  var dk: array<f32, HS>;
  var dv: array<f32, HS>;
  for (var c = 0u; c < HS; c++) {
    k[c] = f32(qkv[key + c]) * SCALE;
    v[c] = f32(qkv[key + C + c]);
    dk[c] = 0.0;
    dv[c] = 0.0;
  }
  for (var t = s; t < T; t++) {
    let row = channel_of(i, t, 3u * C);
    let from_out = channel_of(i, t, C);
    let j = i - s + t;
    var score = 0.0;
    var dp = 0.0;
    for (var c = 0u; c < HS; c++) {
      score = fma(f32(qkv[row + c]), k[c], score);
      dp = fma(f32(dout[from_out + c]), v[c], dp);
    }
    let p = exp(score - kept[j]);
    let ds = p * (dp - deltas[j]) * SCALE;
    for (var c = 0u; c < HS; c++) {
      dk[c] = fma(ds, f32(qkv[row + c]), dk[c]);
      dv[c] = fma(p, f32(dout[from_out + c]), dv[c]);
    }
  }
  for (var c = 0u; c < HS; c++) {
    dqkv[key + c] = dqkv_type(dk[c]);
    dqkv[key + C + c] = dqkv_type(dv[c]);
  }
}

// Softmax and cross-entropy over the vocabulary, forward and backward at once: the logits become their own
// gradient, in place. The naive variant: one thread a row.
//
//   losses[n] = log Σ_v exp(logits[n, v]) - logits[n, targets[n]]            logits (N, V), row stride LD
//   logits[n, v] = (softmax(logits[n])[v] - [v = targets[n]]) · SCALE        if GRADIENT
//
// With LOSS_SCALING, the gradient is multiplied by loss_scale[0] too, so that it stays in the range of f16.
//
// Columns V .. LD-1 are padding; with GRADIENT they become 0, so that matmuls may read whole vectors.

@group(0) @binding(0) var<storage, read_write> logits: array<logits_type>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;  // [N]
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;  // [N], nats
@group(0) @binding(3) var<storage, read> row_losses: array<f32>;  // [N], as forward_backward wrote them
@group(0) @binding(4) var<storage, read_write> scalars: array<f32>;
@group(0) @binding(5) var<storage, read_write> counters: array<u32>;
@group(0) @binding(6) var<storage, read> loss_scale: array<f32>;  // [1], see adamw.wgsl

// Constants: N V LD SCALE GRADIENT LOSS_SCALING
@compute @workgroup_size(64)
fn forward_backward(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  if (n >= N) {
    return;
  }
  let row = n * LD;
  var largest = f32(logits[row]);
  for (var v = 1u; v < V; v++) {
    largest = max(largest, f32(logits[row + v]));
  }
  var sum = 0.0;
  for (var v = 0u; v < V; v++) {
    sum += exp(f32(logits[row + v]) - largest);
  }
  let target_logit = f32(logits[row + targets[n]]);
  losses[n] = log(sum) - (target_logit - largest);
  if (GRADIENT) {
    var by = SCALE;
    if (LOSS_SCALING) {
      by *= loss_scale[0];
    }
    let scale = by / sum;
    for (var v = 0u; v < V; v++) {
      let p = exp(f32(logits[row + v]) - largest) * scale;
      logits[row + v] = logits_type(p - select(0.0, by, v == targets[n]));
    }
    for (var v = V; v < LD; v++) {
      logits[row + v] = 0;
    }
  }
}

var<workgroup> shared_sum: array<f32, 256>;

// The micro-batch's share of the step's mean loss: scalars[0] = (or, after the first, +=) Σ row_losses · SCALE.
// Also counts the micro-batch.
// Constants: N SCALE
@compute @workgroup_size(256)
fn mean(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var n = lane; n < N; n += 256u) {
    sum += row_losses[n];
  }
  shared_sum[lane] = sum;
  for (var half = 128u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      shared_sum[lane] += shared_sum[lane + half];
    }
  }
  if (lane == 0u) {
    scalars[0] = select(scalars[0], 0.0, counters[3] == 0u) + shared_sum[0] * SCALE;
    counters[3] += 1u;
  }
}

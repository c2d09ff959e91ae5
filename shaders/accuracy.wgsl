// Whether the model would have chosen the target: is it the row's largest logit, the first among equals?
// One thread a row.
//
//   hits[n] = [targets[n] = argmax_v logits[n, v]]                           logits (N, V), row stride LD

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;  // [N]
@group(0) @binding(2) var<storage, read_write> hits: array<u32>;  // [N], 0 or 1

// Constants: N V LD
@compute @workgroup_size(64)
fn top_one(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  if (n >= N) {
    return;
  }
  var best = 0u;
  var largest = logits[n * LD];
  for (var v = 1u; v < V; v++) {
    let logit = logits[n * LD + v];
    if (logit > largest) {
      best = v;
      largest = logit;
    }
  }
  hits[n] = select(0u, 1u, best == targets[n]);
}

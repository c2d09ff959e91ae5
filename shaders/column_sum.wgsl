// out[c] = Σ_n x[n, c] in two stages of fixed order: gradients of biases, and the second stage of LayerNorm's and
// of matmuls that sum up in parts.
//
//   partial  sums[p, c] = Σ x[n, c] over the ROWS rows of part p          x (N, C), sums with a row stride
//   total    out[c] = Σ_p parts[p, c]                                     parts (P, C), of all vectors at once

@group(0) @binding(0) var<storage, read> x: array<x_type>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;  // [p · STRIDE + c]
@group(0) @binding(2) var<storage, read> parts: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<out_type>;

// Columns C .. WIDTH-1 of sums lie between this vector and the next: they become 0.
// Constants: N C ROWS STRIDE WIDTH
@compute @workgroup_size(64)
fn partial(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let part = id.y;
  if (c >= WIDTH) {
    return;
  }
  var sum = 0.0;
  if (c < C) {
    for (var n = part * ROWS; n < min((part + 1u) * ROWS, N); n++) {
      sum += f32(x[n * C + c]);
    }
  }
  sums[part * STRIDE + c] = sum;
}

// Constants: P C ADD
@compute @workgroup_size(256)
fn total(@builtin(global_invocation_id) id: vec3<u32>) {
  add_up(id.x);
}

// out[i] = x[i], in out's type: the f16 copies of weights that were made or loaded. A thread moves EACH numbers,
// and asks for all of them before it writes the first.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<out_type>;

const EACH = 4u;

// Constants: N
@compute @workgroup_size(256)
fn convert(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = group.x * (EACH * 256u) + lane;
  if (i + (EACH - 1u) * 256u < N) {
    let four = vec4<f32>(x[i], x[i + 256u], x[i + 512u], x[i + 768u]);
    out[i] = out_type(four.x);
    out[i + 256u] = out_type(four.y);
    out[i + 512u] = out_type(four.z);
    out[i + 768u] = out_type(four.w);
  } else {
    for (var last = i; last < N; last += 256u) {
      out[last] = out_type(x[last]);
    }
  }
}

// out[i] = x[i], in out's type: the f16 copies of weights that were made or loaded.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<out_type>;

// Constants: N
@compute @workgroup_size(256)
fn convert(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * 65535u + group.x) * 256u + lane;
  if (i < N) {
    out[i] = out_type(x[i]);
  }
}

// out[M, N] = op(a) · op(b), with the epilogue of matmul.wgsl, on matrix units: a and b are f16, sums are f32. In tiles,
// as matmul_units_product.wgsl makes them, under its conditions.
//
// If PART is less than K, the workgroups of grid z make the parts of the product, as in matmul_tiled.wgsl, whose first
// part adds bias and residual.
//
// Constants: as matmul.wgsl, and those of matmul_fragments.wgsl

@group(0) @binding(0) var<storage, read> a: array<vec4<u32>>;  // of eight halves each
@group(0) @binding(1) var<storage, read> b: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> aux: array<vec4<aux_type>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<out_type>>;
@group(0) @binding(5) var<storage, read_write> extra: array<vec4<extra_type>>;

var<workgroup> memory: array<vec4<u32>, max(SLICES, 4u * PATCH)>;

fn read_a(i: u32) -> vec4<u32> {
  return a[i];
}

fn read_b(i: u32) -> vec4<u32> {
  return b[i];
}

// Whether a part of the sum is the one that bias and residual are added to
fn first_part(part: u32) -> bool {
  return PART >= K || part == 0u;
}

fn operands(part: u32, i: u32) -> Operands {
  var r: Operands;
  if ((RESIDUAL || GELU_BACKWARD) && first_part(part)) {
    r.aux = vec4<f32>(aux[i]);
  }
  if (ADD) {
    r.old = vec4<f32>(out[i]);
  }
  return r;
}

fn store(part: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) {
  var s = value;
  if (BIAS && first_part(part)) {
    s += bias[n / 4u];
  }
  if (GELU) {
    extra[i] = vec4<extra_type>(s);
    s = gelu(s);
  }
  if (GELU_BACKWARD) {
    s *= gelu_backward(r.aux);
  }
  if (RESIDUAL) {
    s += r.aux;
  }
  if (ADD) {
    s += r.old;
  }
  out[i] = vec4<out_type>(s);
}

@compute @workgroup_size(THREADS)
fn multiply(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  const COLUMNS = (N + TILE_N - 1u) / TILE_N;
  multiply_tile(group.z, group.y * COLUMNS + group.x, thread);
}

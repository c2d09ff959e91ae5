// out[M, N] = op(a) · op(b), with the epilogue of matmul.wgsl. For GPUs: in tiles, as matmul_product.wgsl makes them.
// Tiles of 128×128 are the faster ones on an H100; others leave fewer of its processors idle on small outputs.
//
// If PART is less than K, the workgroups of grid z make the parts of the product. Of the epilogue there are bias and
// residual at most then, which the first part adds.
//
// Constants: as matmul.wgsl, with TILE_M 64 or 128, and TILE_N 64, 128 or 192

@group(0) @binding(0) var<storage, read> a: array<vec4<a_type>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<b_type>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> aux: array<vec4<aux_type>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<out_type>>;
@group(0) @binding(5) var<storage, read_write> extra: array<vec4<extra_type>>;

const SUM_ROWS = false;

fn read_a(i: u32) -> vec4<f32> {
  return vec4<f32>(a[i]);
}

fn read_b(i: u32) -> vec4<f32> {
  return vec4<f32>(b[i]);
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

fn store(part: u32, m: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) -> vec4<f32> {
  if ((M % TILE_M != 0u && m >= M) || (N % TILE_N != 0u && n >= N)) {
    return vec4<f32>();
  }
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
  return s;
}

@compute @workgroup_size(THREADS)
fn multiply(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  const COLUMNS = (N + TILE_N - 1u) / TILE_N;
  multiply_tile(group.z, group.y * COLUMNS + group.x, lane);
}

// The gradients of a linear layer x (N, INPUTS) · weight (INPUTS, OUTPUTS) = out (N, OUTPUTS), from that of `out`, in one
// dispatch, so that each product fills the processors that the other leaves idle:
//
//   dx (N, INPUTS)            = dout · weightᵀ, times GELU's derivative at `before` if GELU_BACKWARD, plus dx if ADD_X
//   dweight (INPUTS, OUTPUTS) = xᵀ · dout, plus dweight if ADD_WEIGHT
//
// If TABLE, the weight and its gradient are stored the other way: (OUTPUTS, INPUTS). Rows of dout have a stride of LD.
// For GPUs: in tiles, as matmul_product.wgsl makes them, those of dx first. Sums over OUTPUTS and over N are made in
// parts of PART_X and PART_WEIGHT, to be added up where there are several; there is no other epilogue then.
//
// Constants: N INPUTS OUTPUTS LD TABLE GELU_BACKWARD ADD_X ADD_WEIGHT PART_X PART_WEIGHT, TILE_M 64 or 128, and TILE_N
// 64, 128 or 192

@group(0) @binding(0) var<storage, read> dout: array<vec4<dout_type>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<weight_type>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<x_type>>;
@group(0) @binding(3) var<storage, read> before: array<vec4<before_type>>;
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<dx_type>>;
@group(0) @binding(5) var<storage, read_write> dweight: array<vec4<dweight_type>>;

// dx as a product: a is dout, b the weight
const M_of_x = N;
const N_of_x = INPUTS;
const K_of_x = OUTPUTS;
const LDA_of_x = LD;
const LDB_of_x = select(OUTPUTS, INPUTS, TABLE);
const LDO_of_x = INPUTS;
const PART_of_x = PART_X;
const TRANSPOSE_A_of_x = false;
const TRANSPOSE_B_of_x = !TABLE;

fn read_a_of_x(i: u32) -> vec4<f32> {
  return vec4<f32>(dout[i]);
}

fn read_b_of_x(i: u32) -> vec4<f32> {
  return vec4<f32>(weight[i]);
}

fn operands_of_x(part: u32, i: u32) -> Operands {
  var r: Operands;
  if (GELU_BACKWARD) {
    r.aux = vec4<f32>(before[i]);
  }
  if (ADD_X) {
    r.old = vec4<f32>(dx[i]);
  }
  return r;
}

fn store_of_x(part: u32, m: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) {
  if ((N % TILE_M != 0u && m >= N) || (INPUTS % TILE_N != 0u && n >= INPUTS)) {
    return;
  }
  var s = value;
  if (GELU_BACKWARD) {
    s *= gelu_backward(r.aux);
  }
  if (ADD_X) {
    s += r.old;
  }
  dx[i] = vec4<dx_type>(s);
}

// dweight as a product: a is x and b is dout, or the other way for a table
const M_of_weight = select(INPUTS, OUTPUTS, TABLE);
const N_of_weight = select(OUTPUTS, INPUTS, TABLE);
const K_of_weight = N;
const LDA_of_weight = select(INPUTS, LD, TABLE);
const LDB_of_weight = select(LD, INPUTS, TABLE);
const LDO_of_weight = N_of_weight;
const PART_of_weight = PART_WEIGHT;
const TRANSPOSE_A_of_weight = true;
const TRANSPOSE_B_of_weight = false;

fn read_a_of_weight(i: u32) -> vec4<f32> {
  if (TABLE) {
    return vec4<f32>(dout[i]);
  }
  return vec4<f32>(x[i]);
}

fn read_b_of_weight(i: u32) -> vec4<f32> {
  if (TABLE) {
    return vec4<f32>(x[i]);
  }
  return vec4<f32>(dout[i]);
}

fn operands_of_weight(part: u32, i: u32) -> Operands {
  var r: Operands;
  if (ADD_WEIGHT) {
    r.old = vec4<f32>(dweight[i]);
  }
  return r;
}

fn store_of_weight(part: u32, m: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) {
  const M = M_of_weight;
  if ((M % TILE_M != 0u && m >= M) || (N_of_weight % TILE_N != 0u && n >= N_of_weight)) {
    return;
  }
  dweight[i] = vec4<dweight_type>(value + select(vec4<f32>(), r.old, ADD_WEIGHT));
}

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  const TILES_X = (M_of_x + TILE_M - 1u) / TILE_M * ((N_of_x + TILE_N - 1u) / TILE_N);
  const OF_X = TILES_X * ((K_of_x + PART_X - 1u) / PART_X);
  const TILES_WEIGHT = (M_of_weight + TILE_M - 1u) / TILE_M * ((N_of_weight + TILE_N - 1u) / TILE_N);
  const OF_WEIGHT = TILES_WEIGHT * ((N + PART_WEIGHT - 1u) / PART_WEIGHT);
  let number = group.y * 65535u + group.x;
  if (number < OF_X) {
    multiply_tile_of_x(number / TILES_X, number % TILES_X, lane);
  } else if (number < OF_X + OF_WEIGHT) {
    multiply_tile_of_weight((number - OF_X) / TILES_WEIGHT, (number - OF_X) % TILES_WEIGHT, lane);
  }
}

// The gradients of a linear layer x (N, INPUTS) · weight (INPUTS, OUTPUTS) = out (N, OUTPUTS), from that of `out`, in one
// dispatch, so that each product fills the processors that the other leaves idle:
//
//   dx (N, INPUTS)            = dout · weightᵀ, times GELU's derivative at `before` if GELU_BACKWARD, plus dx if ADD_X
//   dweight (INPUTS, OUTPUTS) = xᵀ · dout, plus dweight if ADD_WEIGHT
//
// If TABLE, the weight and its gradient are stored the other way: (OUTPUTS, INPUTS). Rows of dout have a stride of LD.
// Sums over OUTPUTS and over N are made in parts of PART_X and PART_WEIGHT, to be added up where there are several;
// there is no other epilogue then.
//
// If SUM_ROWS, each ROWS rows of dx are summed up, too, for the gradient of a bias, under conditions that sums_rows in
// trainer/ops/linear.py checks.
//
// For GPUs: in tiles, as matmul_product.wgsl makes them.
//
// Constants: as linear_gradients.wgsl, and those of matmul_slices.wgsl

@group(0) @binding(0) var<storage, read> dout: array<vec4<dout_type>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<weight_type>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<x_type>>;
@group(0) @binding(3) var<storage, read> before: array<vec4<before_type>>;
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<dx_type>>;
@group(0) @binding(5) var<storage, read_write> dweight: array<vec4<dweight_type>>;
@group(0) @binding(6) var<storage, read_write> sums: array<vec4<f32>>;  // [part · STRIDE + c]

fn read_a_of_x(i: u32) -> vec4<f32> {
  return vec4<f32>(dout[i]);
}

fn read_b_of_x(i: u32) -> vec4<f32> {
  return vec4<f32>(weight[i]);
}

fn store_of_x(part: u32, m: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) -> vec4<f32> {
  if ((N % TILE_M != 0u && m >= N) || (INPUTS % TILE_N != 0u && n >= INPUTS)) {
    return vec4<f32>();
  }
  var s = value;
  if (GELU_BACKWARD) {
    s *= gelu_backward(r.aux);
  }
  if (ADD_X) {
    s += r.old;
  }
  dx[i] = vec4<dx_type>(s);
  return s;
}

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

fn store_of_weight(part: u32, m: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) -> vec4<f32> {
  const M = M_of_weight;
  if ((M % TILE_M != 0u && m >= M) || (N_of_weight % TILE_N != 0u && n >= N_of_weight)) {
    return vec4<f32>();
  }
  let s = value + select(vec4<f32>(), r.old, ADD_WEIGHT);
  dweight[i] = vec4<dweight_type>(s);
  return s;
}

// The i-th vector of sums over ROWS rows of a tile of dx, whose first row and column `tile` is. Written out, as share is,
// for the same reason.
fn sum_rows(tile: vec2<u32>, i: u32) {
  let column = tile.y / 4u + i % ROW_B;
  if (i >= TILE_M / ROWS * ROW_B || column >= WIDTH / 4u) {
    return;
  }
  let at = i / ROW_B * (ROWS / 8u) * ROW_B + i % ROW_B;
  var sum = sum_of_eight(at);
  if (ROWS >= 16u) {
    sum += sum_of_eight(at + ROW_B);
  }
  if (ROWS >= 32u) {
    sum += sum_of_eight(at + 2u * ROW_B) + sum_of_eight(at + 3u * ROW_B);
  }
  if (ROWS >= 64u) {
    sum += sum_of_eight(at + 4u * ROW_B) + sum_of_eight(at + 5u * ROW_B);
    sum += sum_of_eight(at + 6u * ROW_B) + sum_of_eight(at + 7u * ROW_B);
  }
  sums[(tile.x / ROWS + i / ROW_B) * (STRIDE / 4u) + column] = sum;
}

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let number = group.y * 65535u + group.x;
  if (number < OF_X) {
    multiply_tile_of_x(number / TILES_X, number % TILES_X, lane);
    if (SUM_ROWS) {
      workgroupBarrier();
      sum_rows(tile_at_of_x(number), lane);
      if (TILE_M / ROWS * ROW_B > THREADS) {
        sum_rows(tile_at_of_x(number), lane + THREADS);
      }
    }
  } else if (number < OF_X + OF_WEIGHT) {
    multiply_tile_of_weight((number - OF_X) / TILES_WEIGHT, (number - OF_X) % TILES_WEIGHT, lane);
  }
}

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
// On matrix units: dout, weight and x are f16, sums are f32. In tiles, as matmul_units_product.wgsl makes them, so INPUTS,
// OUTPUTS and LD must be multiples of 8.
//
// Constants: as linear_gradients.wgsl, and those of matmul_fragments.wgsl

@group(0) @binding(0) var<storage, read> dout: array<vec4<u32>>;  // of eight halves each
@group(0) @binding(1) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> before: array<vec4<before_type>>;
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<dx_type>>;
@group(0) @binding(5) var<storage, read_write> dweight: array<vec4<dweight_type>>;
@group(0) @binding(6) var<storage, read_write> sums: array<vec4<f32>>;  // [part · STRIDE + c]

var<workgroup> memory: array<vec4<u32>, max(max(SLICES_of_x, SLICES_of_weight), 4u * PATCH)>;

fn read_a_of_x(i: u32) -> vec4<u32> {
  return dout[i];
}

fn read_b_of_x(i: u32) -> vec4<u32> {
  return weight[i];
}

fn store_of_x(part: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) {
  var s = value;
  if (GELU_BACKWARD) {
    s *= gelu_backward(r.aux);
  }
  if (ADD_X) {
    s += r.old;
  }
  dx[i] = vec4<dx_type>(s);
}

fn read_a_of_weight(i: u32) -> vec4<u32> {
  if (TABLE) {
    return dout[i];
  }
  return x[i];
}

fn read_b_of_weight(i: u32) -> vec4<u32> {
  if (TABLE) {
    return x[i];
  }
  return dout[i];
}

fn store_of_weight(part: u32, n: u32, i: u32, value: vec4<f32>, r: Operands) {
  dweight[i] = vec4<dweight_type>(value + select(vec4<f32>(), r.old, ADD_WEIGHT));
}

// Sums up the rows of a tile of dx that the workgroup has stored, each ROWS of them, from its first row and column on.
fn sum_rows(tile: vec2<u32>, thread: u32) {
  const VECTORS = TILE_N / 4u;
  storageBarrier();
  for (var i = thread; i < TILE_M / ROWS * VECTORS; i += THREADS) {
    let first = tile.x + i / VECTORS * ROWS;
    let column = tile.y / 4u + i % VECTORS;
    var sum = vec4<f32>();
    for (var row = first; row < first + ROWS && column < INPUTS / 4u; row++) {
      sum += vec4<f32>(dx[row * (INPUTS / 4u) + column]);
    }
    if (column < WIDTH / 4u) {
      sums[first / ROWS * (STRIDE / 4u) + column] = sum;
    }
  }
}

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let number = group.y * 65535u + group.x;
  if (number < OF_X) {
    multiply_tile_of_x(number / TILES_X, number % TILES_X, thread);
    if (SUM_ROWS) {
      sum_rows(tile_at_of_x(number), thread);
    }
  } else if (number < OF_X + OF_WEIGHT) {
    multiply_tile_of_weight((number - OF_X) / TILES_WEIGHT, (number - OF_X) % TILES_WEIGHT, thread);
  }
}

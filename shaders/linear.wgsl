// The gradients of a linear layer x (N, INPUTS) · weight (INPUTS, OUTPUTS) = out (N, OUTPUTS), from that of `out`. The
// naive variant: one thread an output, those of dx first, any shape.
//
//   dx (N, INPUTS)            = dout · weightᵀ, times GELU's derivative at `before` if GELU_BACKWARD, plus dx if ADD_X
//   dweight (INPUTS, OUTPUTS) = xᵀ · dout, plus dweight if ADD_WEIGHT
//
// If TABLE, the weight and its gradient are stored the other way: (OUTPUTS, INPUTS). Rows of dout have a stride of LD.
// Sums are f32, whatever dout, weight, x, before, dx and dweight are stored as.
//
// If SUM_ROWS, each ROWS rows of dx are summed up, too, for the gradient of a bias: N must be whole parts of them. A
// thread makes a column of such a part then.
//
// Constants: N INPUTS OUTPUTS LD TABLE GELU_BACKWARD ADD_X ADD_WEIGHT, SUM_ROWS, ROWS, and STRIDE and WIDTH of sums, of
// which those behind INPUTS become 0, and PART_X, PART_WEIGHT, SHORT, TILE_M and TILE_N for the variants with tiles

@group(0) @binding(0) var<storage, read> dout: array<dout_type>;
@group(0) @binding(1) var<storage, read> weight: array<weight_type>;
@group(0) @binding(2) var<storage, read> x: array<x_type>;
@group(0) @binding(3) var<storage, read> before: array<before_type>;
@group(0) @binding(4) var<storage, read_write> dx: array<dx_type>;
@group(0) @binding(5) var<storage, read_write> dweight: array<dweight_type>;
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;  // [part · STRIDE + c]

const SQRT_2_OVER_PI = 0.7978845608028654;

// As in matmul.wgsl
fn gelu_backward(x: f32) -> f32 {
  let t = tanh(clamp(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x), -10.0, 10.0));
  let dt = (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x * x);
  return 0.5 * (1.0 + t) + 0.5 * x * dt;
}

fn of_x(i: u32) -> f32 {
  let n = i / INPUTS;
  let c = i % INPUTS;
  var s = 0.0;
  for (var o = 0u; o < OUTPUTS; o++) {
    s = fma(f32(dout[n * LD + o]), f32(weight[select(c * OUTPUTS + o, o * INPUTS + c, TABLE)]), s);
  }
  if (GELU_BACKWARD) {
    s *= gelu_backward(f32(before[i]));
  }
  if (ADD_X) {
    s += f32(dx[i]);
  }
  dx[i] = dx_type(s);
  return f32(dx[i]);
}

fn sum_of_x(part: u32, c: u32) {
  var sum = 0.0;
  for (var n = part * ROWS; n < (part + 1u) * ROWS; n++) {
    sum += of_x(n * INPUTS + c);
  }
  sums[part * STRIDE + c] = sum;
  if (c == INPUTS - 1u) {
    for (var more = INPUTS; more < WIDTH; more++) {
      sums[part * STRIDE + more] = 0.0;
    }
  }
}

fn of_weight(i: u32) {
  let c = select(i / OUTPUTS, i % INPUTS, TABLE);
  let o = select(i % OUTPUTS, i / INPUTS, TABLE);
  var s = 0.0;
  for (var n = 0u; n < N; n++) {
    s = fma(f32(x[n * INPUTS + c]), f32(dout[n * LD + o]), s);
  }
  if (ADD_WEIGHT) {
    s += f32(dweight[i]);
  }
  dweight[i] = dweight_type(s);
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = 64u * (group.y * 65535u + group.x) + lane;
  if (i < N * INPUTS) {
    if (!SUM_ROWS) {
      of_x(i);
    } else if (i < N / ROWS * INPUTS) {
      sum_of_x(i / INPUTS, i % INPUTS);
    }
  } else if (i - N * INPUTS < INPUTS * OUTPUTS) {
    of_weight(i - N * INPUTS);
  }
}

// The first stage of column_sum.wgsl, for GPUs: four threads share a column of a part, each with every fourth row,
// and ask for eight numbers before they add up the first.

@group(0) @binding(0) var<storage, read> x: array<x_type>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;  // [p · STRIDE + c]

const STRIPS = 4u;
const COLUMNS = 64u;

var<workgroup> strips: array<f32, 256>;  // [STRIPS][COLUMNS]

fn x_at(n: u32, c: u32) -> f32 {
  return f32(x[n * C + c]);
}

// Columns C .. WIDTH-1 of sums lie between this vector and the next: they become 0.
// Constants: N C ROWS STRIDE WIDTH
@compute @workgroup_size(64, 4)
fn partial(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) thread: vec3<u32>) {
  let column = group.x * COLUMNS + thread.x;
  let c = min(column, C - 1u);
  let end = min((group.y + 1u) * ROWS, N);
  var sum = 0.0;
  var n = group.y * ROWS + thread.y;
  for (; n + 7u * STRIPS < end; n += 8u * STRIPS) {
    let m = n + 4u * STRIPS;
    let four = vec4<f32>(x_at(n, c), x_at(n + STRIPS, c), x_at(n + 2u * STRIPS, c), x_at(n + 3u * STRIPS, c));
    let more = vec4<f32>(x_at(m, c), x_at(m + STRIPS, c), x_at(m + 2u * STRIPS, c), x_at(m + 3u * STRIPS, c));
    sum += dot(four + more, vec4<f32>(1.0));
  }
  for (; n < end; n += STRIPS) {
    sum += x_at(n, c);
  }
  strips[thread.y * COLUMNS + thread.x] = sum;
  workgroupBarrier();
  if (thread.y == 0u && column < WIDTH) {
    let at = thread.x;
    let all = (strips[at] + strips[at + COLUMNS]) + (strips[at + 2u * COLUMNS] + strips[at + 3u * COLUMNS]);
    sums[group.y * STRIDE + column] = select(0.0, all, column < C);
  }
}

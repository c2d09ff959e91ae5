// Softmax and cross-entropy as in cross_entropy.wgsl, for GPUs: one workgroup a row, which it reads once. The
// row stays in registers until its gradient is written, up to 50 vectors of four numbers a thread: LD is a
// multiple of 4 and at most 51,200.
//
// The registers have names, because an array of so many went to memory: in f16, that took longer on an H100
// than reading the row twice. What lies beyond the row is left out when the constants are known.
//
// Constants: N V LD SCALE GRADIENT LOSS_SCALING

@group(0) @binding(0) var<storage, read_write> logits: array<vec4<logits_type>>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;  // [N]
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;  // [N], nats
@group(0) @binding(6) var<storage, read> loss_scale: array<f32>;  // [1], see adamw.wgsl

const LANES = 256u;
const VECTORS = LD / 4u;  // of a row: lane l has vectors l, l + LANES, ...
const LOWEST = -3.0e38;

var<workgroup> reduced: array<vec2<f32>, LANES>;  // (maximum, Σ exp(logit - maximum))

// Ten neighbours among a lane's vectors
struct Ten {
  v0: vec4<logits_type>,
  v1: vec4<logits_type>,
  v2: vec4<logits_type>,
  v3: vec4<logits_type>,
  v4: vec4<logits_type>,
  v5: vec4<logits_type>,
  v6: vec4<logits_type>,
  v7: vec4<logits_type>,
  v8: vec4<logits_type>,
  v9: vec4<logits_type>,
}

// What a vector's numbers become
struct Softmax {
  largest: f32,
  scale: f32,
  of_target: f32,  // to be subtracted there
  answer: u32,  // the target
}

fn load(row: u32, lane: u32, i: u32) -> vec4<logits_type> {
  if (i * LANES >= VECTORS) {
    return vec4<logits_type>();
  }
  return logits[row + min(lane + i * LANES, VECTORS - 1u)];
}

fn load_ten(row: u32, lane: u32, i: u32) -> Ten {
  return Ten(
    load(row, lane, i),
    load(row, lane, i + 1u),
    load(row, lane, i + 2u),
    load(row, lane, i + 3u),
    load(row, lane, i + 4u),
    load(row, lane, i + 5u),
    load(row, lane, i + 6u),
    load(row, lane, i + 7u),
    load(row, lane, i + 8u),
    load(row, lane, i + 9u),
  );
}

fn numbers(v: u32) -> vec4<u32> {
  return 4u * v + vec4<u32>(0u, 1u, 2u, 3u);
}

// A lane's vector i; the lowest of numbers beyond V
fn logits_of(v: vec4<logits_type>, lane: u32, i: u32) -> vec4<f32> {
  if (4u * (i + 1u) * LANES <= V) {
    return vec4<f32>(v);
  }
  return select(vec4<f32>(LOWEST), vec4<f32>(v), numbers(lane + i * LANES) < vec4<u32>(V));
}

fn largest_of(ten: Ten, lane: u32, i: u32) -> vec4<f32> {
  var most = vec4<f32>(LOWEST);
  most = max(most, logits_of(ten.v0, lane, i));
  most = max(most, logits_of(ten.v1, lane, i + 1u));
  most = max(most, logits_of(ten.v2, lane, i + 2u));
  most = max(most, logits_of(ten.v3, lane, i + 3u));
  most = max(most, logits_of(ten.v4, lane, i + 4u));
  most = max(most, logits_of(ten.v5, lane, i + 5u));
  most = max(most, logits_of(ten.v6, lane, i + 6u));
  most = max(most, logits_of(ten.v7, lane, i + 7u));
  most = max(most, logits_of(ten.v8, lane, i + 8u));
  most = max(most, logits_of(ten.v9, lane, i + 9u));
  return most;
}

fn exponentials(v: vec4<logits_type>, lane: u32, i: u32, largest: f32) -> vec4<f32> {
  if (i * LANES >= VECTORS) {
    return vec4<f32>();
  }
  return exp(logits_of(v, lane, i) - largest);
}

fn sum_of(ten: Ten, lane: u32, i: u32, largest: f32) -> vec4<f32> {
  var sum = vec4<f32>();
  sum += exponentials(ten.v0, lane, i, largest);
  sum += exponentials(ten.v1, lane, i + 1u, largest);
  sum += exponentials(ten.v2, lane, i + 2u, largest);
  sum += exponentials(ten.v3, lane, i + 3u, largest);
  sum += exponentials(ten.v4, lane, i + 4u, largest);
  sum += exponentials(ten.v5, lane, i + 5u, largest);
  sum += exponentials(ten.v6, lane, i + 6u, largest);
  sum += exponentials(ten.v7, lane, i + 7u, largest);
  sum += exponentials(ten.v8, lane, i + 8u, largest);
  sum += exponentials(ten.v9, lane, i + 9u, largest);
  return sum;
}

fn write(row: u32, v: vec4<logits_type>, lane: u32, i: u32, softmax: Softmax) {
  let at = lane + i * LANES;
  if (i * LANES < VECTORS && at < VECTORS) {
    let p = exponentials(v, lane, i, softmax.largest) * softmax.scale;
    let subtracted = select(vec4<f32>(), vec4<f32>(softmax.of_target), numbers(at) == vec4<u32>(softmax.answer));
    logits[row + at] = vec4<logits_type>(p - subtracted);
  }
}

fn write_ten(row: u32, ten: Ten, lane: u32, i: u32, softmax: Softmax) {
  write(row, ten.v0, lane, i, softmax);
  write(row, ten.v1, lane, i + 1u, softmax);
  write(row, ten.v2, lane, i + 2u, softmax);
  write(row, ten.v3, lane, i + 3u, softmax);
  write(row, ten.v4, lane, i + 4u, softmax);
  write(row, ten.v5, lane, i + 5u, softmax);
  write(row, ten.v6, lane, i + 6u, softmax);
  write(row, ten.v7, lane, i + 7u, softmax);
  write(row, ten.v8, lane, i + 8u, softmax);
  write(row, ten.v9, lane, i + 9u, softmax);
}

// Two pairs as one. A lane that has no number has the sum 0.
fn join(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  let largest = max(a.x, b.x);
  return vec2<f32>(largest, a.y * exp(a.x - largest) + b.y * exp(b.x - largest));
}

@compute @workgroup_size(256)
fn forward_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n = group.y * 65535u + group.x;
  if (n >= N) {
    return;
  }
  let row = n * VECTORS;
  let answer = targets[n];
  let target_logit = f32(logits[row + answer / 4u][answer % 4u]);
  let a = load_ten(row, lane, 0u);
  let b = load_ten(row, lane, 10u);
  let c = load_ten(row, lane, 20u);
  let d = load_ten(row, lane, 30u);
  let e = load_ten(row, lane, 40u);
  var four = largest_of(a, lane, 0u);
  four = max(four, largest_of(b, lane, 10u));
  four = max(four, largest_of(c, lane, 20u));
  four = max(four, largest_of(d, lane, 30u));
  four = max(four, largest_of(e, lane, 40u));
  let largest = max(max(four.x, four.y), max(four.z, four.w));
  four = sum_of(a, lane, 0u, largest);
  four += sum_of(b, lane, 10u, largest);
  four += sum_of(c, lane, 20u, largest);
  four += sum_of(d, lane, 30u, largest);
  four += sum_of(e, lane, 40u, largest);
  let sum = (four.x + four.y) + (four.z + four.w);
  reduced[lane] = vec2<f32>(largest, select(0.0, sum, 4u * lane < V));
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      reduced[lane] = join(reduced[lane], reduced[lane + half]);
    }
  }
  let total = workgroupUniformLoad(&reduced[0]);  // a barrier, too: target_logit has been read by all lanes
  if (lane == 0u) {
    losses[n] = log(total.y) - (target_logit - total.x);
  }
  if (GRADIENT) {  // what lies beyond V becomes 0
    var by = SCALE;
    if (LOSS_SCALING) {
      by *= loss_scale[0];
    }
    let softmax = Softmax(total.x, by / total.y, by, answer);
    write_ten(row, a, lane, 0u, softmax);
    write_ten(row, b, lane, 10u, softmax);
    write_ten(row, c, lane, 20u, softmax);
    write_ten(row, d, lane, 30u, softmax);
    write_ten(row, e, lane, 40u, softmax);
  }
}

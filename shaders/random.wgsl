// Counter-based random numbers: a hash of (seed, stream, index), so that nothing has to be kept or ordered.
//
//   normal   out[i] ~ N(0, STD²), equal to the bit on every device: twelve 16-bit uniforms are added as
//            integers (Irwin–Hall; mean 6·65535, deviation 65536) and scaled by one multiplication
//   fill     out[i] = VALUE
//   windows  the training batch: B windows of T tokens at random starts, and the tokens that follow each
//
// The hash is pcg4d of Jarzynski and Olano, "Hash Functions for GPU Rendering" (JCGT 2020).

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;  // two u16 tokens in each, the first one low
@group(0) @binding(2) var<storage, read> counters: array<u32>;
@group(0) @binding(3) var<storage, read_write> inputs: array<u32>;  // [B, T]
@group(0) @binding(4) var<storage, read_write> targets: array<u32>;  // [B, T]

fn pcg4d(v: vec4<u32>) -> vec4<u32> {
  var x = v * 1664525u + 1013904223u;
  x.x += x.y * x.w;
  x.y += x.z * x.x;
  x.z += x.x * x.y;
  x.w += x.y * x.z;
  x ^= x >> vec4<u32>(16u);
  x.x += x.y * x.w;
  x.y += x.z * x.x;
  x.z += x.x * x.y;
  x.w += x.y * x.z;
  return x;
}

fn halves(v: vec4<u32>) -> u32 {
  let s = (v & vec4<u32>(0xffffu)) + (v >> vec4<u32>(16u));
  return s.x + s.y + s.z + s.w;
}

// Constants: N STD SEED STREAM FIRST (out[0] is element FIRST of the stream)
@compute @workgroup_size(64)
fn normal(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * 65535u + group.x) * 64u + lane;
  if (i >= N) {
    return;
  }
  let first = pcg4d(vec4<u32>(SEED, STREAM, FIRST + i, 0u));
  let second = pcg4d(vec4<u32>(SEED, STREAM, FIRST + i, 1u));
  let low = second & vec4<u32>(0xffffu);  // eight halves of the first, four of the second
  let sum = halves(first) + low.x + low.y + low.z + low.w;
  // The mean goes in integers: as floats, a compiler may fuse the difference into the product.
  out[i] = f32(i32(sum) - 393210) * (STD / 65536.0);
}

// Constants: N VALUE
@compute @workgroup_size(64)
fn fill(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * 65535u + group.x) * 64u + lane;
  if (i < N) {
    out[i] = VALUE;
  }
}

// The upper 32 bits of a · b: scales a random a to 0 .. b-1.
fn multiply_high(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}

fn token(i: u32) -> u32 {
  return (tokens[i / 2u] >> (16u * (i % 2u))) & 0xffffu;
}

// Constants: B T SEED STARTS (windows may start at 0 .. STARTS-1)
//   FIRST COUNT: this dispatch's part of the data holds the windows that start at FIRST .. FIRST+COUNT-1
// counters = [step, updates applied, steps skipped, micro-batch of this step]
@compute @workgroup_size(64)
fn windows(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= B * T) {
    return;
  }
  let row = (counters[3] * B) + i / T;
  let start = multiply_high(pcg4d(vec4<u32>(SEED, 0x77696e64u, counters[0], row)).x, STARTS);
  if (start < FIRST || start >= FIRST + COUNT) {
    return;
  }
  let at = start - FIRST + i % T;
  inputs[i] = token(at);
  targets[i] = token(at + 1u);
}

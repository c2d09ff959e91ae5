// Token and position embedding, and its gradient without float atomics.
//
//   out[b, t, :] = token_table[tokens[b, t], :] + position_table[t, :]         out (B, T, C)
//
// A token table above the binding limit is bound in parts: FIRST and COUNT are the rows at hand, and each
// dispatch serves the tokens that lie in its part.
//
// Backward: dtoken_table[v, :] += Σ dout[i, :] over the positions i that hold token v. `chain` links each
// position to the next one with the same token; the thread of a token's first position then walks the chain,
// so that every row has one writer and one order of addition.

@group(0) @binding(0) var<storage, read> tokens: array<u32>;  // [N], N = B·T
@group(0) @binding(1) var<storage, read> token_table: array<f32>;  // [COUNT, C]
@group(0) @binding(2) var<storage, read> position_table: array<f32>;  // [T, C]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // [N, C]
@group(0) @binding(4) var<storage, read_write> links: array<u32>;  // [N]
@group(0) @binding(5) var<storage, read> chains: array<u32>;  // [N], as `chain` wrote it
@group(0) @binding(6) var<storage, read> dout: array<dout_type>;  // [N, C]
@group(0) @binding(7) var<storage, read_write> dtoken_table: array<f32>;  // [COUNT, C]
@group(0) @binding(8) var<storage, read_write> dposition_table: array<f32>;  // [T, C]
@group(0) @binding(9) var<storage, read> position: array<u32>;  // [1]

const FIRST_OF_CHAIN = 0x80000000u;

// A workgroup a position, whose channels the threads share.
// Constants: N T C FIRST COUNT
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n = group.y * 65535u + group.x;
  if (n >= N) {
    return;
  }
  let token = tokens[n] - FIRST;
  if (token >= COUNT) {
    return;
  }
  for (var c = lane; c < C; c += 64u) {
    out[n * C + c] = token_table[token * C + c] + position_table[(n % T) * C + c];
  }
}

// One token, tokens[position], at its own position: for generation.
// Constants: C FIRST COUNT
@compute @workgroup_size(64)
fn forward_one(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let token = tokens[position[0]] - FIRST;
  if (c < C && token < COUNT) {
    out[c] = token_table[token * C + c] + position_table[position[0] * C + c];
  }
}

// Which of the 16 tokens from `at` on are `token`, a bit each. Behind the last one, that one is read again: the
// lowest bit is right. Reading them at once, instead of one after the other, is what makes `chain` fast.
fn matches(at: u32, last: u32, token: u32) -> u32 {
  return four_match(at, last, token) | (four_match(at + 4u, last, token) << 4u)
    | (four_match(at + 8u, last, token) << 8u) | (four_match(at + 12u, last, token) << 12u);
}

fn four_match(at: u32, last: u32, token: u32) -> u32 {
  let i = min(vec4<u32>(at) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last));
  let equal = vec4<u32>(tokens[i.x], tokens[i.y], tokens[i.z], tokens[i.w]) == vec4<u32>(token);
  let bits = select(vec4<u32>(), vec4<u32>(1u, 2u, 4u, 8u), equal);
  return bits.x | bits.y | bits.z | bits.w;
}

// The first position up to `last` that holds `token`, or the one behind `last`: of 16 from `start` on, and of 16
// every `step` further.
fn search(start: u32, step: u32, last: u32, token: u32) -> u32 {
  var at = start;
  var found = 0u;
  while (at <= last && found == 0u) {
    found = matches(at, last, token);
    at += select(step, firstTrailingBit(found), found != 0u);
  }
  return min(at, last + 1u);
}

const POSITIONS = 32u;

var<workgroup> nearest: array<vec2<u32>, 256>;  // what each thread found behind the position, and of all

// links[i] = the next position with the token of i (or N), plus FIRST_OF_CHAIN if none came before. Up to 8 STRIPS
// search for a position, each through sixteens of its own.
// Constants: N STRIPS
@compute @workgroup_size(POSITIONS, STRIPS)
fn chain(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) thread: vec3<u32>) {
  let i = group.x * POSITIONS + thread.x;
  let token = tokens[min(i, N - 1u)];
  let skip = 16u * thread.y;
  let step = 16u * STRIPS;
  let found = vec2<u32>(search(i + 1u + skip, step, N - 1u, token), search(skip, step, N - 1u, token));
  nearest[thread.y * POSITIONS + thread.x] = found;
  workgroupBarrier();
  if (thread.y > 0u || i >= N) {
    return;
  }
  var first = vec2<u32>(N);
  for (var strip = 0u; strip < STRIPS; strip++) {
    first = min(first, nearest[strip * POSITIONS + thread.x]);
  }
  links[i] = first.x | select(0u, FIRST_OF_CHAIN, first.y == i);
}

// Adds to what dtoken_table holds: the head, which shares the table, has written there before.
// Constants: N C FIRST COUNT
@compute @workgroup_size(256)
fn backward_tokens(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * 65535u + group.x) * 256u + lane;
  if (i >= N * C) {
    return;
  }
  var at = i / C;
  let c = i % C;
  let token = tokens[at] - FIRST;
  if (token >= COUNT || chains[at] < FIRST_OF_CHAIN) {
    return;
  }
  var sum = 0.0;
  while (at < N) {
    sum += f32(dout[at * C + c]);
    at = chains[at] & ~FIRST_OF_CHAIN;
  }
  dtoken_table[token * C + c] += sum;
}

// dposition_table[t, :] = Σ_b dout[b, t, :]
// Constants: N T C ADD
@compute @workgroup_size(64)
fn backward_positions(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * 65535u + group.x) * 64u + lane;
  if (i >= T * C) {
    return;
  }
  var sum = 0.0;
  for (var b = 0u; b < N / T; b++) {
    sum += f32(dout[b * T * C + i]);
  }
  if (ADD) {
    sum += dposition_table[i];
  }
  dposition_table[i] = sum;
}

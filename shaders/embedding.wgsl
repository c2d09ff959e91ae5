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

const POSITIONS = 32u;
const TILE = 512u;  // vectors of tokens that are compared between two barriers

var<workgroup> tile: array<vec4<u32>, TILE>;
var<workgroup> nearest: array<vec2<u32>, 256>;  // what each thread found behind the position, and of all

fn smallest(v: vec4<u32>) -> u32 {
  return min(min(v.x, v.y), min(v.z, v.w));
}

// links[i] = the next position with the token of i (or N), plus FIRST_OF_CHAIN if none came before. Up to 8 STRIPS
// search for a position, each through vectors of its own. All tokens are compared, from workgroup memory: a search
// that ends where it finds its token waits for memory each time that it goes on.
// Constants: N STRIPS
@compute @workgroup_size(POSITIONS, STRIPS)
fn chain(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) thread: vec3<u32>) {
  let i = group.x * POSITIONS + thread.x;
  let token = tokens[min(i, N - 1u)];
  var found = vec2<u32>(N);
  for (var start = 0u; start < N; start += 4u * TILE) {
    workgroupBarrier();
    for (var e = thread.y * POSITIONS + thread.x; e < TILE; e += POSITIONS * STRIPS) {
      let at = min(vec4<u32>(start + 4u * e) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(N - 1u));
      tile[e] = vec4<u32>(tokens[at.x], tokens[at.y], tokens[at.z], tokens[at.w]);
    }
    workgroupBarrier();
    let end = min(TILE, (N - start + 3u) / 4u);
    for (var e = thread.y; e < end; e += STRIPS) {
      let equal = tile[e] == vec4<u32>(token);
      if (any(equal)) {
        let at = vec4<u32>(start + 4u * e) + vec4<u32>(0u, 1u, 2u, 3u);
        let all = select(vec4<u32>(N), at, equal);
        found = min(found, vec2<u32>(smallest(select(vec4<u32>(N), all, at > vec4<u32>(i))), smallest(all)));
      }
    }
  }
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

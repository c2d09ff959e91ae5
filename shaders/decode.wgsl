// Attention of one new token over the keys and values of all tokens so far: generation with a KV cache.
//
// The cache of a layer is the qkv tensor (T, 3C) that the forward pass over the prompt leaves behind. This
// kernel puts the new token's row into it and attends; one workgroup a head. Scores are made in blocks of
// 256 keys, with a running maximum and sum across blocks.
//
// Constants: NH HS SCALE

@group(0) @binding(0) var<storage, read> row: array<f32>;  // [3C], qkv of the new token
@group(0) @binding(1) var<storage, read_write> cache: array<f32>;  // (T, 3C)
@group(0) @binding(2) var<storage, read> position: array<u32>;  // [1], where the new token stands
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // [C]

const C = NH * HS;
const BLOCK = 256u;

var<workgroup> scores: array<f32, 256>;
var<workgroup> reduced: array<f32, 256>;

@compute @workgroup_size(256)
fn forward_one(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let h = group.x;
  let last = position[0];
  for (var c = lane; c < 2u * HS; c += BLOCK) {
    let from_row = C + (c / HS) * C + h * HS + c % HS;
    cache[last * 3u * C + from_row] = row[from_row];
  }
  storageBarrier();
  var largest = -3.0e38;
  var sum = 0.0;
  var value = 0.0;  // channel `lane` of the head
  for (var first = 0u; first <= last; first += BLOCK) {
    let s = first + lane;
    var score = -3.0e38;
    if (s <= last) {
      score = 0.0;
      for (var c = 0u; c < HS; c++) {
        score = fma(row[h * HS + c], cache[s * 3u * C + C + h * HS + c], score);
      }
      score *= SCALE;
    }
    reduced[lane] = score;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
      workgroupBarrier();
      if (lane < half) {
        reduced[lane] = max(reduced[lane], reduced[lane + half]);
      }
    }
    workgroupBarrier();
    let new_largest = max(largest, reduced[0]);
    let p = select(0.0, exp(score - new_largest), s <= last);
    scores[lane] = p;
    workgroupBarrier();
    reduced[lane] = p;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
      workgroupBarrier();
      if (lane < half) {
        reduced[lane] += reduced[lane + half];
      }
    }
    workgroupBarrier();
    let shrink = exp(largest - new_largest);
    sum = sum * shrink + reduced[0];
    value *= shrink;
    if (lane < HS) {
      for (var j = 0u; j < min(BLOCK, last + 1u - first); j++) {
        value = fma(scores[j], cache[(first + j) * 3u * C + 2u * C + h * HS + lane], value);
      }
    }
    largest = new_largest;
    workgroupBarrier();
  }
  if (lane < HS) {
    out[h * HS + lane] = value / sum;
  }
}

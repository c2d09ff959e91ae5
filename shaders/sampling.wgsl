// Chooses the next token on the GPU: greedy, temperature, top-k and top-p, from a seed. One workgroup.
//
//   w[v] = exp((logits[v] - max) / temperature)
//   top-k keeps every token at least as likely as the k-th; then top-p keeps the smallest set of likeliest
//   tokens whose share of the remaining weight reaches p (ties are kept). Both thresholds are found without
//   sorting: positive floats order as their bits do, so 32 halvings of the bit range find the exact one.
//   The choice is the first v whose cumulative weight passes u · total, u from the hash of (seed, draw).
//
// settings = [temperature, top_p],  choices = [seed, top_k];  temperature 0 is greedy, top_k 0 keeps all
// cursor = [position of the newest token, draws so far]: both move on by one
//
// Constants: V

@group(0) @binding(0) var<storage, read> logits: array<f32>;  // [V]
@group(0) @binding(1) var<storage, read> settings: array<f32>;
@group(0) @binding(2) var<storage, read> choices: array<u32>;
@group(0) @binding(3) var<storage, read_write> cursor: array<u32>;
@group(0) @binding(4) var<storage, read_write> sequence: array<u32>;  // [T + 1] tokens
@group(0) @binding(5) var<storage, read_write> probabilities: array<f32>;  // [T + 1], softmax of the raw logits

const LANES = 256u;
const NONE = 0xffffffffu;

var<workgroup> numbers: array<f32, 256>;
var<workgroup> places: array<u32, 256>;
var<workgroup> shared_token: u32;

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

fn sum_of_lanes(lane: u32, value: f32) -> f32 {
  workgroupBarrier();
  numbers[lane] = value;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      numbers[lane] += numbers[lane + half];
    }
  }
  return workgroupUniformLoad(&numbers[0]);
}

// Weight of token v, or 0 if it is below the threshold.
fn weight(v: u32, largest: f32, temperature: f32, threshold: u32) -> f32 {
  let w = exp((logits[v] - largest) / temperature);
  return select(0.0, w, bitcast<u32>(w) >= threshold);
}

@compute @workgroup_size(256)
fn choose(@builtin(local_invocation_index) lane: u32) {
  // The largest logit, and the first token that has it
  var best = NONE;
  for (var v = lane; v < V; v += LANES) {
    if (best == NONE || logits[v] > logits[best]) {
      best = v;
    }
  }
  places[lane] = best;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half && places[lane + half] != NONE) {
      let a = places[lane];
      let b = places[lane + half];
      if (a == NONE || logits[b] > logits[a] || (logits[b] == logits[a] && b < a)) {
        places[lane] = b;
      }
    }
  }
  workgroupBarrier();
  if (lane == 0u) {
    shared_token = places[0];
  }
  let greedy = workgroupUniformLoad(&shared_token);
  let largest = logits[greedy];

  if (settings[0] > 0.0) {
    let temperature = settings[0];
    var threshold = 0u;
    if (choices[1] > 0u && choices[1] < V) {
      for (var bit = 0x40000000u; bit > 0u; bit >>= 1u) {
        var count = 0.0;
        for (var v = lane; v < V; v += LANES) {
          count += select(0.0, 1.0, weight(v, largest, temperature, threshold | bit) > 0.0);
        }
        if (sum_of_lanes(lane, count) >= f32(choices[1])) {
          threshold |= bit;
        }
      }
    }
    if (settings[1] < 1.0) {
      var total = 0.0;
      for (var v = lane; v < V; v += LANES) {
        total += weight(v, largest, temperature, threshold);
      }
      let enough = settings[1] * sum_of_lanes(lane, total);
      var nucleus = 0u;
      for (var bit = 0x40000000u; bit > 0u; bit >>= 1u) {
        var share = 0.0;
        for (var v = lane; v < V; v += LANES) {
          share += weight(v, largest, temperature, nucleus | bit);
        }
        if (sum_of_lanes(lane, share) >= enough) {
          nucleus |= bit;
        }
      }
      threshold = nucleus;  // never below top-k's, where the share is all of what remains
    }
    // Lane by lane: each holds a run of neighbouring tokens
    let run = (V + LANES - 1u) / LANES;
    var mine = 0.0;
    for (var v = lane * run; v < min((lane + 1u) * run, V); v++) {
      mine += weight(v, largest, temperature, threshold);
    }
    workgroupBarrier();
    numbers[lane] = mine;
    workgroupBarrier();
    if (lane == 0u) {
      var total = 0.0;
      for (var j = 0u; j < LANES; j++) {
        total += numbers[j];
      }
      let u = f32(pcg4d(vec4<u32>(choices[0], 0x64726177u, cursor[1], 0u)).x >> 8u) / 16777216.0;
      var left = u * total;
      var owner = 0u;
      while (owner < LANES - 1u && left >= numbers[owner]) {
        left -= numbers[owner];
        owner++;
      }
      var token = greedy;  // also where rounding leaves `left` beyond the last weight
      for (var v = owner * run; v < min((owner + 1u) * run, V); v++) {
        let w = weight(v, largest, temperature, threshold);
        if (w > 0.0) {
          token = v;
          if (left < w) {
            break;
          }
          left -= w;
        }
      }
      shared_token = token;
    }
  }
  let token = workgroupUniformLoad(&shared_token);
  var mass = 0.0;
  for (var v = lane; v < V; v += LANES) {
    mass += exp(logits[v] - largest);
  }
  let total = sum_of_lanes(lane, mass);
  if (lane == 0u) {
    let next = cursor[0] + 1u;
    sequence[next] = token;
    probabilities[next] = exp(logits[token] - largest) / total;
    cursor[0] = next;
    cursor[1] += 1u;
  }
}

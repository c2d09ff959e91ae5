// The second stage of a sum over rows: out[c] = Σ_p parts[p, c], plus out[c] if ADD, with parts (P, C). A kernel of
// several sums reads this file once for each, with a suffix behind all names of the next line, and behind those that
// are declared here (trainer/kernels.py).
//
// Given: parts out P C ADD

const GROUPS = (C + 255u) / 256u;

fn add_up(c: u32) {
  if (c >= C) {
    return;
  }
  var sum = 0.0;
  for (var p = 0u; p < P; p++) {
    sum += parts[p * C + c];
  }
  if (ADD) {
    sum += f32(out[c]);
  }
  out[c] = out_type(sum);
}

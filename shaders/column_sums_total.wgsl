// One of the sums of column_sums.wgsl: out[c] = Σ_p parts[p, c], plus out[c] if ADD, with parts (P, C).
//
// Given: parts out P C ADD

const GROUPS = (C + 255u) / 256u;

fn total(c: u32) {
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

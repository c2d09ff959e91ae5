// The order in which workgroups make the tiles of a product out[M, N]: in bands of a few rows of tiles, each from left
// to right, so that the operands of those that are made together stay in the cache. A kernel of several products reads
// this file once for each, as matmul_product.wgsl.
//
// Given: M N

const BAND = 8u;  // rows of tiles

// The first row and column of tile `number`
fn tile_at(number: u32) -> vec2<u32> {
  const HIGH = (M + TILE_M - 1u) / TILE_M;  // tiles
  const WIDE = (N + TILE_N - 1u) / TILE_N;
  let band = number / (BAND * WIDE) * BAND;
  let height = min(HIGH - band, BAND);
  let within = number % (BAND * WIDE);
  return vec2<u32>((band + within % height) * TILE_M, within / height * TILE_N);
}

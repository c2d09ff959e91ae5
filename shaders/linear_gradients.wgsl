// What the variants of linear.wgsl's backward with tiles share: the gradients as two products (matmul_product.wgsl), of
// which a kernel's first workgroups make that of x, the longest ones, and the following ones that of the weight.
//
// Constants: as linear.wgsl, with PART_X and PART_WEIGHT, columns of the parts that the sums over OUTPUTS and over N are
// made in, and TILE_M and TILE_N

// dx as a product: a is dout, b the weight
const M_of_x = N;
const N_of_x = INPUTS;
const K_of_x = OUTPUTS;
const LDA_of_x = LD;
const LDB_of_x = select(OUTPUTS, INPUTS, TABLE);
const LDO_of_x = INPUTS;
const PART_of_x = PART_X;
const TRANSPOSE_A_of_x = false;
const TRANSPOSE_B_of_x = !TABLE;
const SUM_ROWS_of_x = SUM_ROWS;

fn operands_of_x(part: u32, i: u32) -> Operands {
  var r: Operands;
  if (GELU_BACKWARD) {
    r.aux = vec4<f32>(before[i]);
  }
  if (ADD_X) {
    r.old = vec4<f32>(dx[i]);
  }
  return r;
}

// dweight as a product: a is x and b is dout, or the other way for a table
const M_of_weight = select(INPUTS, OUTPUTS, TABLE);
const N_of_weight = select(OUTPUTS, INPUTS, TABLE);
const K_of_weight = N;
const LDA_of_weight = select(INPUTS, LD, TABLE);
const LDB_of_weight = select(LD, INPUTS, TABLE);
const LDO_of_weight = N_of_weight;
const PART_of_weight = PART_WEIGHT;
const TRANSPOSE_A_of_weight = true;
const TRANSPOSE_B_of_weight = false;
const SUM_ROWS_of_weight = false;

fn operands_of_weight(part: u32, i: u32) -> Operands {
  var r: Operands;
  if (ADD_WEIGHT) {
    r.old = vec4<f32>(dweight[i]);
  }
  return r;
}

// Tiles of each product, and the workgroups that make their parts
const TILES_X = (M_of_x + TILE_M - 1u) / TILE_M * ((N_of_x + TILE_N - 1u) / TILE_N);
const OF_X = TILES_X * ((OUTPUTS + PART_X - 1u) / PART_X);
const TILES_WEIGHT = (M_of_weight + TILE_M - 1u) / TILE_M * ((N_of_weight + TILE_N - 1u) / TILE_N);
const OF_WEIGHT = TILES_WEIGHT * ((N + PART_WEIGHT - 1u) / PART_WEIGHT);

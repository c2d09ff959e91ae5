// The second stage of column_sum.wgsl for several matrices of partial sums in one launch, since a launch that waits for
// the one before it takes longer than it has work: workgroups make one sum after the other.
//
// Constants: of each sum those of column_total.wgsl (C is 0 where there are fewer)

@group(0) @binding(0) var<storage, read> parts_0: array<f32>;
@group(0) @binding(1) var<storage, read> parts_1: array<f32>;
@group(0) @binding(2) var<storage, read> parts_2: array<f32>;
@group(0) @binding(3) var<storage, read> parts_3: array<f32>;
@group(0) @binding(4) var<storage, read_write> out_0: array<out_0_type>;
@group(0) @binding(5) var<storage, read_write> out_1: array<out_1_type>;
@group(0) @binding(6) var<storage, read_write> out_2: array<out_2_type>;
@group(0) @binding(7) var<storage, read_write> out_3: array<out_3_type>;

@compute @workgroup_size(256)
fn totals(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  const END_0 = GROUPS_0;
  const END_1 = END_0 + GROUPS_1;
  const END_2 = END_1 + GROUPS_2;
  if (group.x < END_0) {
    add_up_0(256u * group.x + thread);
  } else if (group.x < END_1) {
    add_up_1(256u * (group.x - END_0) + thread);
  } else if (group.x < END_2) {
    add_up_2(256u * (group.x - END_1) + thread);
  } else {
    add_up_3(256u * (group.x - END_2) + thread);
  }
}

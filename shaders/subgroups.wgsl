// What other kernels rely on where a device has subgroups, tried once when it is opened: that eight threads in a row
// share one, so that they can hand each other numbers. WebGPU promises no order of threads, and where the size of
// subgroups is not known, it tells a smaller one.
//
//   met[8 t + i] = t xor i, as thread t hears it from that thread

@group(0) @binding(0) var<storage, read_write> met: array<u32>;  // [64 · 8]

@compute @workgroup_size(64)
fn meet(@builtin(local_invocation_index) thread: u32) {
  for (var i = 0u; i < 8u; i++) {
    met[8u * thread + i] = subgroupShuffleXor(thread, i);
  }
}

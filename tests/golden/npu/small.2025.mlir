module {
  aie.device(npu1_1col) {
    %tile_0_0 = aie.tile(0, 0)
    %tile_0_1 = aie.tile(0, 1)
    %tile_0_2 = aie.tile(0, 2)
    %mx = aie.buffer(%tile_0_1) {address = 0 : i32, sym_name = "mx"} : memref<8xi32>
    %my = aie.buffer(%tile_0_1) {address = 64 : i32, sym_name = "my"} : memref<8xi32>
    %cx = aie.buffer(%tile_0_2) {address = 4096 : i32, sym_name = "cx"} : memref<8xi32>
    %cy = aie.buffer(%tile_0_2) {address = 4160 : i32, sym_name = "cy"} : memref<8xi32>
    %mx_empty = aie.lock(%tile_0_1, 0) {init = 1 : i32, sym_name = "mx_empty"}
    %mx_full = aie.lock(%tile_0_1, 1) {init = 0 : i32, sym_name = "mx_full"}
    %my_empty = aie.lock(%tile_0_1, 2) {init = 1 : i32, sym_name = "my_empty"}
    %my_full = aie.lock(%tile_0_1, 3) {init = 0 : i32, sym_name = "my_full"}
    %cx_empty = aie.lock(%tile_0_2, 0) {init = 1 : i32, sym_name = "cx_empty"}
    %cx_full = aie.lock(%tile_0_2, 1) {init = 0 : i32, sym_name = "cx_full"}
    %cy_empty = aie.lock(%tile_0_2, 2) {init = 1 : i32, sym_name = "cy_empty"}
    %cy_full = aie.lock(%tile_0_2, 3) {init = 0 : i32, sym_name = "cy_full"}
    aie.flow(%tile_0_0, DMA : 0, %tile_0_1, DMA : 0)
    aie.flow(%tile_0_1, DMA : 0, %tile_0_2, DMA : 0)
    aie.flow(%tile_0_2, DMA : 0, %tile_0_1, DMA : 1)
    aie.flow(%tile_0_1, DMA : 1, %tile_0_0, DMA : 0)
    func.func private @f(memref<8xi32>, memref<8xi32>)
    %core_0_2 = aie.core(%tile_0_2) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c4 = arith.constant 4 : index
      %c9223372036854775807 = arith.constant 9223372036854775807 : index
      scf.for %1 = %c0 to %c9223372036854775807 step %c1 {
        scf.for %2 = %c0 to %c4 step %c1 {
          aie.use_lock(%cx_full, AcquireGreaterEqual, 1)
          aie.use_lock(%cy_empty, AcquireGreaterEqual, 1)
          func.call @f(%cx, %cy) : (memref<8xi32>, memref<8xi32>) -> ()
          aie.use_lock(%cx_empty, Release, 1)
          aie.use_lock(%cy_full, Release, 1)
        }
      }
      aie.end
    } {link_with = "kernels.o", stack_size = 1024 : i32}
    %memtile_dma_0_1 = aie.memtile_dma(%tile_0_1) {
      %start_0 = aie.dma_start(S2MM, 0, ^bb1, ^bb2)
    ^bb1:
      aie.use_lock(%mx_empty, AcquireGreaterEqual, 1)
      aie.dma_bd(%mx : memref<8xi32>, 0, 8) {bd_id = 0 : i32, next_bd_id = 0 : i32}
      aie.use_lock(%mx_full, Release, 1)
      aie.next_bd ^bb1
    ^bb2:
      %start_1 = aie.dma_start(MM2S, 0, ^bb3, ^bb4)
    ^bb3:
      aie.use_lock(%mx_full, AcquireGreaterEqual, 1)
      aie.dma_bd(%mx : memref<8xi32>, 0, 8) {bd_id = 1 : i32, next_bd_id = 1 : i32}
      aie.use_lock(%mx_empty, Release, 1)
      aie.next_bd ^bb3
    ^bb4:
      %start_2 = aie.dma_start(S2MM, 1, ^bb5, ^bb6)
    ^bb5:
      aie.use_lock(%my_empty, AcquireGreaterEqual, 1)
      aie.dma_bd(%my : memref<8xi32>, 0, 8) {bd_id = 24 : i32, next_bd_id = 24 : i32}
      aie.use_lock(%my_full, Release, 1)
      aie.next_bd ^bb5
    ^bb6:
      %start_3 = aie.dma_start(MM2S, 1, ^bb7, ^bb8)
    ^bb7:
      aie.use_lock(%my_full, AcquireGreaterEqual, 1)
      aie.dma_bd(%my : memref<8xi32>, 0, 8) {bd_id = 25 : i32, next_bd_id = 25 : i32}
      aie.use_lock(%my_empty, Release, 1)
      aie.next_bd ^bb7
    ^bb8:
      aie.end
    }
    %mem_0_2 = aie.mem(%tile_0_2) {
      %start_0 = aie.dma_start(S2MM, 0, ^bb1, ^bb2)
    ^bb1:
      aie.use_lock(%cx_empty, AcquireGreaterEqual, 1)
      aie.dma_bd(%cx : memref<8xi32>, 0, 8) {bd_id = 0 : i32, next_bd_id = 0 : i32}
      aie.use_lock(%cx_full, Release, 1)
      aie.next_bd ^bb1
    ^bb2:
      %start_1 = aie.dma_start(MM2S, 0, ^bb3, ^bb4)
    ^bb3:
      aie.use_lock(%cy_full, AcquireGreaterEqual, 1)
      aie.dma_bd(%cy : memref<8xi32>, 0, 8) {bd_id = 1 : i32, next_bd_id = 1 : i32}
      aie.use_lock(%cy_empty, Release, 1)
      aie.next_bd ^bb3
    ^bb4:
      aie.end
    }
    aie.shim_dma_allocation @edge_0_in_0(S2MM, 0, 0)
    aie.shim_dma_allocation @edge_0_out_0(MM2S, 0, 0)
    aiex.runtime_sequence(%host_x: memref<32xi32>, %host_y: memref<32xi32>) {
      aiex.npu.dma_memcpy_nd(%host_x[0, 0, 0, 0][1, 1, 1, 32][0, 0, 0, 1]) {id = 0 : i64, metadata = @edge_0_out_0} : memref<32xi32>
      aiex.npu.dma_memcpy_nd(%host_y[0, 0, 0, 0][1, 1, 1, 32][0, 0, 0, 1]) {id = 8 : i64, metadata = @edge_0_in_0, issue_token = true} : memref<32xi32>
      aiex.npu.dma_wait {symbol = @edge_0_in_0}
    }
  }
}

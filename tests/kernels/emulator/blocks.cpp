// Block after block: see cuda_cpu.py.
#include <deque>
#include "fiber.h"

void __syncthreads() { leave_fiber(); }

static void run_block(dim3 block)
{
    const size_t count = (size_t)block.x * block.y * block.z;
    static std::deque<Fiber> fibers;  // which stay where they are when there come to be more
    while (fibers.size() < count) fibers.push_back({{}, {}, std::vector<char>(1 << 15), {}, false, false});
    for (size_t i = 0; i < count; ++i) {
        fibers[i].done = false;
        fibers[i].index = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
    }
    static unsigned order = 1;
    for (size_t left = count; left;) {
        left = 0;
        order = order * 1664525 + 1013904223;  // where to begin, and which way round: anew after each barrier
        for (size_t i = 0; i < count; ++i) {
            const size_t next = ((order >> 8) + i) % count;
            Fiber& fiber = fibers[order >> 31 ? next : count - 1 - next];
            if (fiber.done) continue;
            threadIdx = fiber.index;
            resume(fiber);
            left += !fiber.done;
        }
    }
}

void run_blocks(dim3 grid, dim3 block, void (*thread)(void**), void** args, bool flushes)
{
    Flushing flushing(flushes);
    gridDim = grid, blockDim = block;
    body = thread, body_args = args;
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        run_block(block);
}

"""Runs a persistent kernel's own source on the CPU: all blocks of a launch at once, as a cooperative launch does.

The threads of all blocks are coroutines of one thread. A block's threads run to the next `__syncthreads`, or to a
`pause` while they wait for another block, one after another in an order that changes from barrier to barrier; blocks
take turns, in an order that changes, too, and each now and then misses a few. Whoever waits for what nobody does is
found: no thread comes further. Copies to shared memory that go on beside a thread are made at some time until that
thread waits for them, so that a missing wait shows.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from tests.kernels.cuda_cpu import SHIM, built

#: In place of sync.cu: counters in memory that all blocks share, and each block's own shared memory.
SYNC = """
#define SHARED_FLOATS(name) float* name = shared_of_block[blockIdx.x].data()
static unsigned load_acquire(const unsigned* from) { return *(const volatile unsigned*)from; }
static float from_thread(float value, unsigned other)
{
    Warp& warp = warps[blockIdx.x * 32 + threadIdx.x / 32];
    const unsigned lane = threadIdx.x % 32, turn = warp.turns[lane]++;
    warp.values[turn % 2][lane] = value;
    ++warp.arrived;
    exchanged = true;
    while (warp.arrived < 32 * (turn + 1)) pause();
    return warp.values[turn % 2][other];
}
static float from_lane(float value, int bit) { return from_thread(value, threadIdx.x % 32 ^ bit); }
static unsigned load_relaxed(const unsigned* from) { return *from; }
static ulonglong2 load_relaxed(const ulonglong2* from) { return *from; }
static void store_relaxed(ulonglong2* to, ulonglong2 value) { *to = value; }
static void store_relaxed(unsigned long long* to, unsigned long long value) { *to = value; }
// A copy is made at any time until it is waited for: by some threads at once, by the others at the last moment, and of
// these some have read before what the others read then.
static void copy(float* to, const float* from, int count, bool there)
{
    if (((size_t)to | (size_t)from) % (4 * count)) fault = "a copy begins or ends off its boundary";
    running->copies.push_back({to, from, count, there, threadIdx.x + moment, {}});
    Copy& made = running->copies.back();
    if (made.kind % 3 != 0) made.read();
    if (made.kind % 3 == 1) made.write();
}
static void copy16(float* to, const float* from, bool there) { copy(to, from, 4, there); }
static void copy4(float* to, const float* from, bool there) { copy(to, from, 1, there); }
static void copies_end() { running->groups.push_back(running->copies.size()); }
template <int LATER> static void copies_done()
{
    std::vector<Copy>& copies = running->copies;
    std::vector<size_t>& groups = running->groups;  // where each ends among the copies
    const size_t over = groups.size() > LATER ? groups.size() - LATER : 0;
    const size_t count = LATER == 0 ? copies.size() : over ? groups[over - 1] : 0;
    for (size_t i = 0; i < count; ++i) {
        if (copies[i].kind % 3 == 0) copies[i].read();
        if (copies[i].kind % 3 != 1) copies[i].write();
    }
    copies.erase(copies.begin(), copies.begin() + count);
    groups.erase(groups.begin(), groups.begin() + over);
    for (size_t& end : groups) end -= count;
    __syncthreads();
}
static void arrive(unsigned* counter) { __syncthreads(); if (threadIdx.x == 0) ++*counter; }
static void await(const unsigned* counter, unsigned count)
{
    if (threadIdx.x == 0) while (load_acquire(counter) < count) pause();
    __syncthreads();
}
static void leave(unsigned* counters, int words, unsigned* leaving)
{
    __syncthreads();
    if (threadIdx.x == 0 && (*leaving)++ == gridDim.x - 1) std::fill(counters, counters + words, 0u);
}
"""

GRID = """
#include <cstdint>
#include <cstring>
#undef __shared__
#define __shared__ static
#define __noinline__
struct alignas(16) float4 { float x, y, z, w; };
template <class T> static T __ldcg(const T* from) { return *from; }
template <class T> static void __stcg(T* to, T value) { *to = value; }
static float __int_as_float(int i) { return bits_as<float>(i); }
static std::vector<std::vector<float>> shared_of_block;
struct Copy {
    float* to; const float* from; int count; bool there; unsigned kind; float values[4];
    void read() { for (int i = 0; i < count; ++i) values[i] = there ? from[i] : 0.0f; }
    void write() { for (int i = 0; i < count; ++i) to[i] = values[i]; }
};
struct Thread { Fiber fiber; bool waits; std::vector<Copy> copies; std::vector<size_t> groups; };
static std::vector<std::deque<Thread>> threads_of_block;  // which stay where they are
static std::vector<int> votes;
struct Warp { float values[2][32]; unsigned turns[32], arrived; };
static bool exchanged;  // between the threads of a warp: somebody comes further, who pauses again at once
static std::vector<Warp> warps;
static Thread* running;
static bool paused;
static unsigned moment;  // changes from turn to turn
static const char* fault;
static void yield() { leave_fiber(); }
static void sync_block() { running->waits = true; yield(); }
static void pause() { paused = true; yield(); paused = false; }
#define __syncthreads sync_block
static int __syncthreads_or(int vote)
{
    const unsigned block = blockIdx.x;
    sync_block();
    votes[block] |= vote;
    sync_block();
    const int result = votes[block];
    sync_block();
    votes[block] = 0;
    return result;
}

const size_t BEYOND = 64;  // floats behind a block's shared memory, which are none of its
const float UNTOUCHED = 12345.678f;

// What went wrong, or null.
static const char* run_grid(unsigned blocks, unsigned count, size_t floats, unsigned order)
{
    gridDim = {blocks, 1, 1}, blockDim = {count, 1, 1};
    shared_of_block.assign(blocks, {});
    while (threads_of_block.size() < blocks) threads_of_block.emplace_back();
    votes.assign(blocks, 0);
    unsigned chance = order;
    fault = nullptr;
    warps.assign(blocks * 32, {});
    for (unsigned b = 0; b < blocks; ++b) {
        shared_of_block[b].assign(floats, 0.0f / 0.0f);  // what was not written shows
        shared_of_block[b].resize(floats + BEYOND, UNTOUCHED);
        for (unsigned i = 0; i < count; ++i) {
            if (i == threads_of_block[b].size())
                threads_of_block[b].push_back(
                    {{{}, {}, std::vector<char>(1 << 16), {i, 0, 0}, false, false}, false, {}, {}});
            Thread& thread = threads_of_block[b][i];
            thread.fiber.made = thread.fiber.made && thread.fiber.done;  // not one that a run left in its middle
            thread.waits = thread.fiber.done = false;
            thread.copies.clear(), thread.groups.clear();
        }
    }
    unsigned idle = 0, turns = 0;
    for (unsigned left = blocks; left; ++turns) {
        const unsigned asleep = (order + turns / 16) % (blocks + 1);
        left = 0;
        bool moved = false;
        moment = chance = chance * 1664525 + 1013904223;
        for (unsigned n = 0; n < blocks; ++n) {
            const unsigned b = (n + (chance >> 8)) % blocks;
            std::deque<Thread>& mine = threads_of_block[b];
            unsigned live = 0, waiting = 0;
            if (b == asleep) {
                for (unsigned i = 0; i < count; ++i) left += !mine[i].fiber.done;
                continue;
            }
            for (unsigned i = 0; i < count; ++i) {
                const unsigned next = ((chance >> 4) + i) % count;
                running = &mine[chance >> 31 ? next : count - 1 - next];
                if (running->fiber.done) continue;
                ++live;
                if (!running->waits) {
                    blockIdx = {b, 0, 0}, threadIdx = running->fiber.index;
                    paused = false;
                    resume(running->fiber);
                    moved |= !paused || exchanged;
                    exchanged = false;
                }
                waiting += running->waits || running->fiber.done;
            }
            if (live && waiting == live) {
                for (Thread& thread : mine) thread.waits = false;
                moved = true;
            }
            left += live > 0;
        }
        idle = moved ? 0 : idle + 1;
        if (idle > 100) return "a block waits for what no other block does";
    }
    for (const std::vector<float>& shared : shared_of_block)
        for (size_t i = 0; i < BEYOND; ++i)
            if (shared[floats + i] != UNTOUCHED) return "a block wrote behind its shared memory";
    return fault;
}
"""


def emulated(code: str) -> str:
    """Return the source with `SYNC` in place of sync.cu."""
    before, _, rest = code.partition('#line 1 "sync.cu"')
    _, found, after = rest.partition('#line 1 "')
    assert found, "expected sync.cu and a file behind it in the source"
    return f"{before}{SYNC}{found}{after}"


class GridKernel:
    """kernel(blocks, threads, shared bytes, arguments); `order` shuffles who runs when.

    Attributes:
        library: what the source was compiled to.
    """

    def __init__(self, code: str, name: str, parameters: str) -> None:
        """`parameters`: as C declares them, for a caller written in C."""
        self.library = _library(emulated(code), name, parameters)
        self.library.run.restype = ctypes.c_char_p

    def __call__(self, blocks: int, threads: int, shared: int, arguments: tuple, order: int = 1) -> None:
        values = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a.item() for a in arguments]
        fault = self.library.run(blocks, threads, ctypes.c_size_t(-(-shared // 4)), order, *values)
        assert fault is None, fault.decode()


@functools.cache
def _library(code: str, name: str, parameters: str) -> ctypes.CDLL:
    names = ", ".join(part.split()[-1].lstrip("*") for part in parameters.split(","))
    entry = (
        f'extern "C" const char* run(unsigned blocks, unsigned threads, size_t floats, unsigned order, {parameters})\n'
        f"{{ Flushing flushing(true); body = [=] {{ {name}({names}); }};\n"
        "return run_grid(blocks, threads, floats, order); }\n"
    )
    return built(f"{SHIM}{GRID}{code}\n{entry}", "-O0", "-fno-exceptions", "-w")

// All blocks at once: see cuda_grid.py.
#include <algorithm>
#include <deque>
#include "fiber.h"
#include "sync.h"

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

void __syncthreads() { running->waits = true; leave_fiber(); }
void pause() { paused = true; leave_fiber(); paused = false; }

int __syncthreads_or(int vote)
{
    const unsigned block = blockIdx.x;
    __syncthreads();
    votes[block] |= vote;
    __syncthreads();
    const int result = votes[block];
    __syncthreads();
    votes[block] = 0;
    return result;
}

float* shared_memory() { return shared_of_block[blockIdx.x].data(); }

unsigned load_acquire(const unsigned* from) { return *(const volatile unsigned*)from; }

float from_thread(float value, unsigned other)
{
    Warp& warp = warps[blockIdx.x * 32 + threadIdx.x / 32];
    const unsigned lane = threadIdx.x % 32, turn = warp.turns[lane]++;
    warp.values[turn % 2][lane] = value;
    ++warp.arrived;
    exchanged = true;
    while (*(volatile unsigned*)&warp.arrived < 32 * (turn + 1)) pause();
    return warp.values[turn % 2][other];
}

// A copy is made at any time until it is waited for: by some threads at once, by the others at the last moment, and of
// these some have read before what the others read then.
void copy(float* to, const float* from, int count, bool there)
{
    if (((size_t)to | (size_t)from) % (4 * count)) fault = "a copy begins or ends off its boundary";
    running->copies.push_back({to, from, count, there, threadIdx.x + moment, {}});
    Copy& made = running->copies.back();
    if (made.kind % 3 != 0) made.read();
    if (made.kind % 3 == 1) made.write();
}

void copies_end() { running->groups.push_back(running->copies.size()); }

void wait_for_copies(size_t later)
{
    std::vector<Copy>& copies = running->copies;
    std::vector<size_t>& groups = running->groups;  // where each ends among the copies
    const size_t over = groups.size() > later ? groups.size() - later : 0;
    const size_t count = later == 0 ? copies.size() : over ? groups[over - 1] : 0;
    for (size_t i = 0; i < count; ++i) {
        if (copies[i].kind % 3 == 0) copies[i].read();
        if (copies[i].kind % 3 != 1) copies[i].write();
    }
    copies.erase(copies.begin(), copies.begin() + count);
    groups.erase(groups.begin(), groups.begin() + over);
    for (size_t& end : groups) end -= count;
    __syncthreads();
}

void arrive(unsigned* counter) { __syncthreads(); if (threadIdx.x == 0) ++*counter; }

void await(const unsigned* counter, unsigned count)
{
    if (threadIdx.x == 0) while (load_acquire(counter) < count) pause();
    __syncthreads();
}

void leave(unsigned* counters, int words, unsigned* leaving)
{
    __syncthreads();
    if (threadIdx.x == 0 && (*leaving)++ == gridDim.x - 1) std::fill(counters, counters + words, 0u);
}

const size_t BEYOND = 64;  // floats behind a block's shared memory, which are none of its
const float UNTOUCHED = 12345.678f;

const char* run_grid(unsigned blocks, unsigned count, size_t floats, unsigned order, void (*thread)(void**), void** args)
{
    Flushing flushing(true);
    body = thread, body_args = args;
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

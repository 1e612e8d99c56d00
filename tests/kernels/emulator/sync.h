// In place of sync.cu: counters in memory that all blocks share, and each block's own shared memory. For grid.cpp.
#pragma once
#include "device.h"
#pragma GCC visibility push(hidden)
int __syncthreads_or(int vote);
float* shared_memory();
void pause();
unsigned load_acquire(const unsigned* from);
float from_thread(float value, unsigned other);
void copy(float* to, const float* from, int count, bool there);
void copies_end();
void wait_for_copies(size_t later);
void arrive(unsigned* counter);
void await(const unsigned* counter, unsigned count);
void leave(unsigned* counters, int words, unsigned* leaving);
// Runs the threads of all blocks at once; what went wrong, or null.
const char* run_grid(unsigned blocks, unsigned threads, size_t floats, unsigned order, void (*thread)(void**), void** args);
#pragma GCC visibility pop
#define SHARED_FLOATS(name) float* name = shared_memory()
static inline float from_lane(float value, int bit) { return from_thread(value, threadIdx.x % 32 ^ bit); }
static inline unsigned load_relaxed(const unsigned* from) { return *from; }
static inline ulonglong2 load_relaxed(const ulonglong2* from) { return *from; }
static inline void store_relaxed(ulonglong2* to, ulonglong2 value) { *to = value; }
static inline void store_relaxed(unsigned long long* to, unsigned long long value) { *to = value; }
static inline void copy16(float* to, const float* from, bool there) { copy(to, from, 4, there); }
static inline void copy4(float* to, const float* from, bool there) { copy(to, from, 1, there); }
template <int LATER> static void copies_done() { wait_for_copies(LATER); }

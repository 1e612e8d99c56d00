// Synchronisation between the blocks of one launch: a block that has written something adds 1 to a counter, and the blocks
// that read it wait until the counter has reached a count.

extern __shared__ float4 shared_memory[];
#define SHARED_FLOATS(name) float* name = reinterpret_cast<float*>(shared_memory)

__device__ __forceinline__ unsigned load_acquire(const unsigned* from)
{
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
}

__device__ __forceinline__ void add_release(unsigned* to)
{
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" : : "l"(to) : "memory");
}

// In its place among other accesses of its kind and copies, where the compiler would move a plain load.
__device__ __forceinline__ unsigned load_relaxed(const unsigned* from)
{
    unsigned value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
}

// Two words at once, each whole.
__device__ __forceinline__ ulonglong2 load_relaxed(const ulonglong2* from)
{
    ulonglong2 value;
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(value.x), "=l"(value.y) : "l"(from) : "memory");
    return value;
}

__device__ __forceinline__ void store_relaxed(ulonglong2* to, ulonglong2 value)
{
    asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %2};" : : "l"(to), "l"(value.x), "l"(value.y) : "memory");
}

__device__ __forceinline__ void store_relaxed(unsigned long long* to, unsigned long long value)
{
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" : : "l"(to), "l"(value) : "memory");
}

__device__ __forceinline__ void pause() {}

// All that the block's threads wrote before is seen by whoever awaits it.
__device__ __forceinline__ void arrive(unsigned* counter)
{
    __syncthreads();
    if (threadIdx.x == 0) add_release(counter);
}

__device__ __forceinline__ void await(const unsigned* counter, unsigned count)
{
    if (threadIdx.x == 0)
        while (load_acquire(counter) < count) pause();
    __syncthreads();
}

// The value that the thread whose number differs in this bit has, of the same warp; all threads of a warp ask at once.
__device__ __forceinline__ float from_lane(float value, int bit) { return __shfl_xor_sync(0xffffffffu, value, bit); }

// Called by every block when it awaits nothing any more: the last one sets the `words` of the counters to 0 for the next
// launch; `leaving` is one of them.
__device__ __forceinline__ void leave(unsigned* counters, int words, unsigned* leaving)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        if (atomicAdd(leaving, 1u) == gridDim.x - 1)
            for (int i = 0; i < words; ++i) counters[i] = 0;
    }
}

// Copies from memory to shared memory that go on beside the thread, until `copies_done`; zeros where `there` is false.
// 16 bytes come from L2; 4 bytes through L1, and so not from what another block has written in this launch.
__device__ __forceinline__ void copy16(float* to, const float* from, bool there)
{
#if __CUDA_ARCH__ >= 800
    const unsigned address = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(address), "l"(from), "r"(there ? 16 : 0) : "memory");
#else
    const float4 zero = {0, 0, 0, 0};
    *reinterpret_cast<float4*>(to) = there ? __ldcg(reinterpret_cast<const float4*>(from)) : zero;
#endif
}

__device__ __forceinline__ void copy4(float* to, const float* from, bool there)
{
#if __CUDA_ARCH__ >= 800
    const unsigned address = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" : : "r"(address), "l"(from), "r"(there ? 4 : 0) : "memory");
#else
    *to = there ? *from : 0.0f;
#endif
}

// The end of a group of this thread's copies.
__device__ __forceinline__ void copies_end()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// Wait for the block's copies, but for the last LATER groups.
template <int LATER>
__device__ __forceinline__ void copies_done()
{
#if __CUDA_ARCH__ >= 800
    if (LATER == 0) asm volatile("cp.async.wait_all;" : : : "memory");
    else asm volatile("cp.async.wait_group %0;" : : "n"(LATER) : "memory");
#endif
    __syncthreads();
}

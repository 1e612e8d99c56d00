// What the CUDA sources find when g++ compiles them for the CPU; with blocks.cpp or grid.cpp, which run their threads.
#ifndef DEVICE_H  // once, also where it is compiled by itself
#define DEVICE_H
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#define __global__ __attribute__((visibility("hidden")))  // libc has an `advance` too
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
using std::exp; using std::log; using std::pow; using std::sqrt;
struct dim3 { unsigned x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
static inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

#pragma GCC visibility push(hidden)
extern dim3 gridDim, blockDim, blockIdx, threadIdx;
void __syncthreads();
// Runs a kernel's threads, block after block, each by a call of `thread`. `flushes`: as CuPy's -ftz=true, in float.
void run_blocks(dim3 grid, dim3 block, void (*thread)(void**), void** args, bool flushes);
#pragma GCC visibility pop

// Each a call, so that the compiler cannot contract it with what stands around.
#define CALLED [[maybe_unused]] __attribute__((noinline)) static
CALLED float __fmul_rn(float a, float b) { return a * b; }
CALLED float __fadd_rn(float a, float b) { return a + b; }
CALLED double __dmul_rn(double a, double b) { return a * b; }
CALLED double __dadd_rn(double a, double b) { return a + b; }
template <class To, class From>
static inline To bits_as(From from) { To to; __builtin_memcpy(&to, &from, sizeof to); return to; }
static inline unsigned __float_as_uint(float value) { return bits_as<unsigned>(value); }
static inline float __uint_as_float(unsigned bits) { return bits_as<float>(bits); }
static inline float __int_as_float(int bits) { return bits_as<float>(bits); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
template <class T> static T __ldcg(const T* from) { return *from; }
template <class T> static void __stcg(T* to, T value) { *to = value; }

// Within a warp; here as if the block waited, too, so all its threads have to make the same calls.
template <class T>
static T __shfl_xor_sync(unsigned, T value, int apart)
{
    static T given[1024];
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    given[thread] = value;
    __syncthreads();
    value = given[thread ^ apart];
    __syncthreads();
    return value;
}

// As cuLaunchKernel does: each argument is read at its address with the type of the kernel's parameter.
template <class... P, size_t... I>
static void call(void (*kernel)(P...), void** args, std::index_sequence<I...>)
{
    kernel(*static_cast<std::remove_cv_t<P>*>(args[I])...);
}
template <class... P>
static void call(void (*kernel)(P...), void** args) { call(kernel, args, std::index_sequence_for<P...>()); }
#endif

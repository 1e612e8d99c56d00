// What the kernels share. `real` is float or double; matrices are row-major, (rows, width).
//
// Sums run over fixed parts in a fixed order and nothing is added atomically: the same input gives the same bits.

typedef long long i64;

// A kernel for blocks of at most so many threads; the compiler then leaves registers for all of them and, by the second
// number, for so many such blocks at once.
#define KERNEL(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__)

const int THREADS = 256;  // of a block that works element by element
const int EACH = 4;  // elements of a thread where memory decides: all are asked for before the first is needed
struct alignas(16) Several { real at[EACH]; };  // neighbours, which are read and written 16 bytes at a time

// What the inputs, outputs and gradients of layers are stored as: `real`, or bf16 (launch.py). Arithmetic is in `real`.
#ifndef STORED
#define STORED real
#endif
typedef STORED stored;
struct alignas(sizeof(stored) == 2 ? 8 : 16) SeveralStored { stored at[EACH]; };
const int SIDE = 32;  // a block that works on columns has SIDE x SIDE threads, a column for each threadIdx.x

// One rounding each, where nvcc would contract a product and a sum into an fma: the bits are those of NumPy's and CuPy's
// functions, which make one pass for each.
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double mul(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }

// `value`, or 0 of its sign below the smallest normal number; NaN stays NaN. For what decays: see fcnet.backends.flush.
// In float nothing is denormal anyway, as CuPy compiles with -ftz=true.
template <class T>
__device__ __forceinline__ T flushed(T value)
{
    const T normal = (T)(sizeof(T) == sizeof(float) ? 1.1754943508222875e-38 : 2.2250738585072014e-308);
    return value < normal && value > -normal ? mul(value, (T)0) : value;
}

// The sum over the block's rows of each column's `value`; every thread gets that of its column.
__device__ __forceinline__ real sum_of_column(real value, real (*shared)[SIDE + 1])
{
    shared[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    for (int half = SIDE / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) shared[threadIdx.y][threadIdx.x] += shared[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }
    const real sum = shared[0][threadIdx.x];
    __syncthreads();
    return sum;
}

// The sum of every thread's `value` in a one-dimensional block whose size is a power of two.
template <class T>
__device__ __forceinline__ T sum_of_block(T value, T* shared)
{
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    const T sum = shared[0];
    __syncthreads();
    return sum;
}

// The sum, and the largest, of the values of `lanes` neighbouring threads, a power of two up to 32; each gets the same bits.
// All threads of a warp take part.
template <class T>
__device__ __forceinline__ T sum_of_lanes(T value, int lanes)
{
    for (int apart = lanes / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffff, value, apart);
    return value;
}

__device__ __forceinline__ real peak_of_lanes(real value, int lanes)
{
    for (int apart = lanes / 2; apart > 0; apart /= 2) {
        const real other = __shfl_xor_sync(0xffffffff, value, apart);
        value = other > value ? other : value;
    }
    return value;
}

__device__ __forceinline__ i64 inside(i64 place, i64 count)
{
    return place < 0 ? 0 : place >= count ? count - 1 : place;  // never other memory
}

// The column of element i: a 64-bit remainder costs as much as the rest of a kernel, and is rarely needed.
__device__ __forceinline__ int column_of(i64 i, int width)
{
    return i <= 0x7fffffff ? (int)((unsigned)i % (unsigned)width) : (int)(i % width);
}

// Which units dropout keeps: those whose 16-bit number is below `threshold`; 65536 keeps all, and draws nothing.
//
// A call of the generator gives the numbers of 16 elements. So a block draws for all its elements at once, a call for
// each of its first few threads, into shared memory, where the rest find them after a barrier.
struct Dropout {
    u64 seed, purpose, layer, step, net;
    int threshold;

    __device__ __forceinline__ bool drops() const { return threshold != 65536; }

    // The numbers of elements 16 sixteen .. 16 sixteen + 15.
    __device__ __forceinline__ void draw(u64 (&words)[4], i64 sixteen) const
    {
        philox4x64_10(seed, purpose, (u64)sixteen + 1, layer, step, net, words);
    }

    // Whether element i is kept; `words` begin with those of sixteen number `first`.
    __device__ __forceinline__ bool keeps(const u64 (*words)[4], i64 first, i64 i) const
    {
        return !drops() || (int)(words[i / 16 - first][i % 16 / 4] >> 16 * (i % 4) & 0xFFFF) < threshold;
    }
};

// A kernel takes the parts of a Dropout one by one; the step is *step_at where that is given.
#define DROPOUT_PARAMETERS u64 seed, u64 purpose, u64 layer, u64 step, const i64* step_at, u64 net, int threshold
#define DROPOUT Dropout{seed, purpose, layer, step_at ? (u64)*step_at : step, net, threshold}

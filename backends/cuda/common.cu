// What the kernels share. `real` is float or double; matrices are row-major, (rows, width).
//
// Sums run over fixed parts in a fixed order and nothing is added atomically: the same input gives the same bits.

typedef long long i64;

const int SIDE = 32;  // a block that works on columns has SIDE x SIDE threads, a column for each threadIdx.x

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

// Which units dropout keeps: those whose 16-bit number is below `threshold`; 65536 keeps all, and draws nothing.
struct Dropout {
    u64 seed, purpose, layer, step, net;
    int threshold;

    // Whether element i of the layer is kept.
    __device__ __forceinline__ bool keeps(i64 i) const
    {
        if (threshold == 65536) return true;
        u64 word[4];
        philox4x64_10(seed, purpose, (u64)(i / 16) + 1, layer, step, net, word);
        const int place = i % 16;
        u64 chosen = word[0];
        if (place >= 4) chosen = word[1];
        if (place >= 8) chosen = word[2];
        if (place >= 12) chosen = word[3];
        return (int)(chosen >> 16 * (place % 4) & 0xFFFF) < threshold;
    }
};

// A kernel takes the parts of a Dropout one by one; the step is *step_at where that is given.
#define DROPOUT_PARAMETERS u64 seed, u64 purpose, u64 layer, u64 step, const i64* step_at, u64 net, int threshold
#define DROPOUT Dropout{seed, purpose, layer, step_at ? (u64)*step_at : step, net, threshold}

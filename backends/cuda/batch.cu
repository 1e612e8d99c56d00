// Both ends of a training step, the functions of fcnet.functional.batch. At its start: gather and preprocess a mini-batch;
// at its end: record the loss and advance the counters.

// batch[i] = data[rows[i]] for rows of `units` units of so many bytes; blockIdx.y is i.
template <class T>
__device__ __forceinline__ void gather(T* batch, const T* data, const i64* rows, i64 count, int units)
{
    const i64 row = inside(rows[blockIdx.y], count);
    const int u = blockIdx.x * blockDim.x + threadIdx.x;
    if (u < units) batch[(i64)blockIdx.y * units + u] = data[row * units + u];
}

KERNEL(256) gather_1(unsigned char* batch, const unsigned char* data, const i64* rows, i64 count, int units)
{
    gather(batch, data, rows, count, units);
}

KERNEL(256) gather_4(unsigned* batch, const unsigned* data, const i64* rows, i64 count, int units)
{
    gather(batch, data, rows, count, units);
}

KERNEL(256) gather_16(ulonglong2* batch, const ulonglong2* data, const i64* rows, i64 count, int units)
{
    gather(batch, data, rows, count, units);
}

// What each of the next batch's kernels begins with: the row order[cursor + i] that becomes row i = blockIdx.y of the
// batch. Its number and its targets, `words` times four bytes, are copied on the way.
#define NEXT_PARAMETERS \
    unsigned* targets, i64* rows, const unsigned* y, i64 count, int words, const i64* order, const i64* cursor
#define NEXT next_row(targets, rows, y, count, words, order, cursor)
__device__ __forceinline__ i64 next_row(NEXT_PARAMETERS)
{
    const int i = blockIdx.y;
    const i64 number = order[inside(*cursor + i, count)];
    const i64 row = inside(number, count);
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) rows[i] = number;
        for (int w = threadIdx.x; w < words; w += blockDim.x) targets[(i64)i * words + w] = y[row * words + w];
    }
    return row;
}

template <class To, class T>
__device__ __forceinline__ void next_batch(To* batch, const T* data, int units, i64 row)
{
    const int u = blockIdx.x * blockDim.x + threadIdx.x;
    if (u < units) batch[(i64)blockIdx.y * units + u] = data[row * units + u];
}

KERNEL(256) next_batch_1(unsigned char* batch, const unsigned char* data, int units, NEXT_PARAMETERS)
{
    next_batch(batch, data, units, NEXT);
}

KERNEL(256) next_batch_4(unsigned* batch, const unsigned* data, int units, NEXT_PARAMETERS)
{
    next_batch(batch, data, units, NEXT);
}

KERNEL(256) next_batch_16(ulonglong2* batch, const ulonglong2* data, int units, NEXT_PARAMETERS)
{
    next_batch(batch, data, units, NEXT);
}

// The same, preprocessed: (byte - shift) scale, each column its own.
template <class T>
__device__ __forceinline__ void next_preprocessed(
    T* batch, const unsigned char* data, int width, const real* shift, const real* scale, i64 row)
{
    const int d = blockIdx.x * blockDim.x + threadIdx.x;
    if (d < width) batch[(i64)blockIdx.y * width + d] = ((real)data[row * width + d] - shift[d]) * scale[d];
}

KERNEL(256) next_batch_bytes(
    real* batch, const unsigned char* data, int width, const real* shift, const real* scale, NEXT_PARAMETERS)
{
    next_preprocessed(batch, data, width, shift, scale, NEXT);
}

// Batches in bfloat16, of bytes and of floats.
KERNEL(256) next_batch_bytes_bf16(
    bf16* batch, const unsigned char* data, int width, const real* shift, const real* scale, NEXT_PARAMETERS)
{
    next_preprocessed(batch, data, width, shift, scale, NEXT);
}

KERNEL(256) next_batch_bf16(bf16* batch, const float* data, int width, NEXT_PARAMETERS)
{
    next_batch(batch, data, width, NEXT);
}

// out = (x - shift) scale, each column its own.
template <class T>
__device__ __forceinline__ void affine_map(real* out, const T* x, const real* shift, const real* scale, i64 size, int width)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const int d = column_of(i, width);
    out[i] = ((real)x[i] - shift[d]) * scale[d];
}

KERNEL(256) preprocess_bytes(
    real* out, const unsigned char* x, const real* shift, const real* scale, i64 size, int width)
{
    affine_map(out, x, shift, scale, size, width);
}

KERNEL(256) preprocess_reals(
    real* out, const real* x, const real* shift, const real* scale, i64 size, int width)
{
    affine_map(out, x, shift, scale, size, width);
}

KERNEL(256) advance(i64* counters, const i64* increments, int count)
{
    if (threadIdx.x < count) counters[threadIdx.x] += increments[threadIdx.x];
}

// losses[counters[1]] = loss, then the counters go on; one thread.
KERNEL(256) record_step(real* losses, i64 slots, i64* counters, const i64* increments, const real* loss)
{
    const i64 slot = counters[1];
    if (slot >= 0 && slot < slots) losses[slot] = *loss;
    counters[0] += increments[0];
    counters[1] += increments[1];
}

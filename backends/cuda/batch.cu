// The start and the end of a step: the functions of fcnet.functional.batch.

// rows[i] = order[cursor + i]; a cursor beyond the end reads the last row number, never other memory.
extern "C" __global__ void batch_rows(i64* rows, const i64* order, i64 count, const i64* cursor, int wanted)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= wanted) return;
    i64 place = *cursor + i;
    place = place < 0 ? 0 : place >= count ? count - 1 : place;
    rows[i] = order[place];
}

// batch[i] = data[rows[i]] for rows of `units` units of so many bytes; blockIdx.y is i.
template <class T>
__device__ __forceinline__ void gather(T* batch, const T* data, const i64* rows, i64 count, int units)
{
    i64 row = rows[blockIdx.y];
    row = row < 0 ? 0 : row >= count ? count - 1 : row;
    const int u = blockIdx.x * blockDim.x + threadIdx.x;
    if (u < units) batch[(i64)blockIdx.y * units + u] = data[row * units + u];
}

extern "C" __global__ void gather_1(unsigned char* batch, const unsigned char* data, const i64* rows, i64 count, int units)
{
    gather(batch, data, rows, count, units);
}

extern "C" __global__ void gather_4(unsigned* batch, const unsigned* data, const i64* rows, i64 count, int units)
{
    gather(batch, data, rows, count, units);
}

extern "C" __global__ void gather_16(ulonglong2* batch, const ulonglong2* data, const i64* rows, i64 count, int units)
{
    gather(batch, data, rows, count, units);
}

// out = (x - shift) scale, each column its own.
template <class T>
__device__ __forceinline__ void affine_map(real* out, const T* x, const real* shift, const real* scale, i64 size, int width)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) out[i] = ((real)x[i] - shift[i % width]) * scale[i % width];
}

extern "C" __global__ void preprocess_bytes(
    real* out, const unsigned char* x, const real* shift, const real* scale, i64 size, int width)
{
    affine_map(out, x, shift, scale, size, width);
}

extern "C" __global__ void preprocess_reals(
    real* out, const real* x, const real* shift, const real* scale, i64 size, int width)
{
    affine_map(out, x, shift, scale, size, width);
}

extern "C" __global__ void advance(i64* counters, const i64* increments, int count)
{
    if (threadIdx.x < count) counters[threadIdx.x] += increments[threadIdx.x];
}

// losses[counters[1]] = loss, then the counters go on; one thread.
extern "C" __global__ void record_step(real* losses, i64 slots, i64* counters, const i64* increments, const real* loss)
{
    const i64 slot = counters[1];
    if (slot >= 0 && slot < slots) losses[slot] = *loss;
    counters[0] += increments[0];
    counters[1] += increments[1];
}

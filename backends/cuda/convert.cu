// Matrices to and from bfloat16, and transposed.

// out = in, rounded.
KERNEL(256) to_bf16(bf16* out, const float* in, i64 size)
{
    const i64 begin = (i64)blockIdx.x * EACH * THREADS + threadIdx.x;
    for (int k = 0; k < EACH && begin + k * THREADS < size; ++k) out[begin + k * THREADS] = in[begin + k * THREADS];
}

KERNEL(256) from_bf16(float* out, const bf16* in, i64 size)
{
    const i64 begin = (i64)blockIdx.x * EACH * THREADS + threadIdx.x;
    for (int k = 0; k < EACH && begin + k * THREADS < size; ++k) out[begin + k * THREADS] = in[begin + k * THREADS];
}

// out (columns, rows) = in (rows, columns) transposed, by blocks of 32 x 8 threads, each with a square of 32.
KERNEL(256) transpose(float* __restrict__ out, const float* __restrict__ in, int rows, int columns)
{
    __shared__ float square[32][33];
    const int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.x;
    for (int i = threadIdx.y; i < 32; i += 8) {
        const int from = blockIdx.y * 32 + i;
        if (from < rows && column < columns) square[i][threadIdx.x] = in[(long long)from * columns + column];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < 32; i += 8) {
        const int to = blockIdx.x * 32 + i;
        if (to < columns && row < rows) out[(long long)to * rows + row] = square[threadIdx.x][i];
    }
}

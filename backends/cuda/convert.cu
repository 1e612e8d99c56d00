// out = in, rounded.
extern "C" __global__ void to_bf16(bf16* __restrict__ out, const float* __restrict__ in, long long n)
{
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = in[i];
}

// out (columns, rows) = in (rows, columns) transposed, by blocks of 32 x 8 threads, each with a square of 32.
extern "C" __global__ void transpose(float* __restrict__ out, const float* __restrict__ in, int rows, int columns)
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

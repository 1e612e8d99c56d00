// Checksums, by which arrays are compared without leaving the device.

// parts[b]: the sum of block b's share of the bytes, as words of four where `unit` is 4, each times an odd number that
// depends on its place, modulo 2^64. A word that changes alone always shows; words that change places do.
template <class T>
__device__ __forceinline__ u64 weighted_sum(const T* words, i64 begin, i64 end)
{
    u64 sum = 0;
    for (i64 i = begin; i < end; i += (i64)gridDim.x * blockDim.x) {
        sum += words[i] * ((u64)i * 0x9E3779B97F4A7C15ull | 1);
    }
    return sum;
}

KERNEL(256) checksum(u64* parts, const unsigned char* bytes, i64 size, int unit)
{
    __shared__ u64 shared[THREADS];
    const i64 mine = (i64)blockIdx.x * blockDim.x + threadIdx.x, words = unit == 4 ? size / 4 : 0;
    u64 sum = weighted_sum((const unsigned*)bytes, mine, words);
    sum += weighted_sum(bytes, 4 * words + mine, size);  // those that fill no word
    sum = sum_of_block(sum, shared);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

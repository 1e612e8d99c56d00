// Philox4x64-10: random numbers that are a function of a key and a counter, with no state.
//
// Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// The words equal those of numpy.random.Philox(key=[seed, purpose], counter=[0, layer, step, net]).random_raw():
// NumPy counts its first word up before each block, so block i (from 0) has the counter (i + 1, layer, step, net).

typedef unsigned long long u64;

// One block: the 128-bit key and the 256-bit counter give 4 words of 64 bits.
__device__ __forceinline__ void philox4x64_10(u64 k0, u64 k1, u64 c0, u64 c1, u64 c2, u64 c3, u64 (&word)[4])
{
    const u64 M0 = 0xD2E7470EE14C6C93ULL, M1 = 0xCA5A826395121157ULL;  // multipliers of the rounds
    const u64 W0 = 0x9E3779B97F4A7C15ULL, W1 = 0xBB67AE8584CAA73BULL;  // what the key grows by between rounds
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 high0 = __umul64hi(M0, c0), low0 = M0 * c0;
        const u64 high1 = __umul64hi(M1, c2), low1 = M1 * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += W0;
        k1 += W1;
    }
    word[0] = c0;
    word[1] = c1;
    word[2] = c2;
    word[3] = c3;
}

// out (size,) = the 16-bit numbers of the blocks 0, 1, ...: 16 to a block, 4 to a word, low bits first.
// One thread makes one block, so launch at least ceil(size / 16) threads in one dimension.
// The step is *step_at, read here, if step_at is not null, else `step`: a recorded launch then follows a counter
// in device memory.
extern "C" __global__ void philox_bits(
    unsigned short* __restrict__ out, long long size, u64 seed, u64 purpose, u64 layer, u64 step,
    const long long* __restrict__ step_at, u64 net)
{
    const long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long first = 16 * block;
    if (first >= size) return;

    u64 word[4];
    philox4x64_10(seed, purpose, (u64)block + 1, layer, step_at ? (u64)*step_at : step, net, word);

    unsigned short* to = out + first;
    if (first + 16 <= size && reinterpret_cast<u64>(to) % 16 == 0) {
        // The device is little-endian: a stored word is its four numbers, low bits first.
        reinterpret_cast<ulonglong2*>(to)[0] = make_ulonglong2(word[0], word[1]);
        reinterpret_cast<ulonglong2*>(to)[1] = make_ulonglong2(word[2], word[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 16; ++i)  // unrolled, so that `word` stays in registers
        if (first + i < size) to[i] = (unsigned short)(word[i / 4] >> 16 * (i % 4));
}

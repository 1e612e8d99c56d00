// float32 to bfloat16, the upper half of its bits, rounded to the nearest, ties to even.

extern "C" __global__ void to_bf16(unsigned short* __restrict__ out, const unsigned int* __restrict__ in, long long n)
{
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned int bits = in[i];
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;  // rounding could make it infinite
    out[i] = (unsigned short)((nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

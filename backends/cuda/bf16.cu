// bfloat16, the upper half of a float's bits.

struct bf16 {
    unsigned short bits;

    bf16() = default;

    // Rounded to the nearest, ties to even.
    __device__ __forceinline__ bf16(float value)
    {
        const unsigned whole = __float_as_uint(value);
        const bool nan = (whole & 0x7fffffffu) > 0x7f800000u;  // rounding could make it infinite
        bits = (unsigned short)((nan ? whole | 0x400000u : whole + 0x7fffu + (whole >> 16 & 1)) >> 16);
    }

    __device__ __forceinline__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};

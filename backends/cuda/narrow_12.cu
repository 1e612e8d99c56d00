// The kernels of layers with up to 12 outputs (narrow.cu), and forward of more.

KERNEL(256, RESIDENT) narrow_forward_12(FORWARD_PARAMETERS) { narrow_forward<12>(FORWARD_ARGUMENTS); }
KERNEL(256, RESIDENT) narrow_backward_12(BACKWARD_PARAMETERS) { narrow_backward<12>(BACKWARD_ARGUMENTS); }

// dw (size) and db (width) = the sums of `count` parts, each of size + width, from the first to the last.
KERNEL(256) narrow_sums(real* dw, real* db, const real* parts, int count, i64 size, int width)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x, length = size + width;
    if (i >= length) return;
    real sum = 0;
#pragma unroll 8  // so many reads at once
    for (int n = 0; n < count; ++n) sum += parts[n * length + i];
    if (i < size) dw[i] = sum;
    else db[i - size] = sum;
}

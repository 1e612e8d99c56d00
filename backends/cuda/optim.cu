// Decay and clipping beside an update rule, over the flat buffers: the functions of fcnet.optim.limits. The learning rate
// is read on the device.

#define ELEMENT \
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= size) return;

// w = w - rate decay w
KERNEL(256) decay_weights(real* w, i64 size, const double* rate, double decay)
{
    ELEMENT
    apply_decay(w[i], *rate * decay);
}

// dw = min(max(dw, -limit), limit)
KERNEL(256) clip_by_value(real* dw, i64 size, real limit)
{
    ELEMENT
    dw[i] = dw[i] < -limit ? -limit : dw[i] > limit ? limit : dw[i];  // NaN stays NaN
}

// dw *= limit / max(limit, |dw|): squares summed in fixed parts, one part a block; then every block adds the parts.
KERNEL(256) norm_parts(double* parts, const real* dw, i64 size)
{
    __shared__ double shared[256];
    double sum = 0;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += (i64)gridDim.x * blockDim.x) {
        sum += (double)dw[i] * dw[i];
    }
    sum = sum_of_block(sum, shared);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

KERNEL(256) clip_by_norm(real* dw, i64 size, const double* parts, int count, real limit)
{
    __shared__ double shared[256];
    __shared__ double factor;
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
    sum = sum_of_block(sum, shared);
    if (threadIdx.x == 0) {
        const double norm = sqrt(sum);
        factor = limit / (norm <= limit ? limit : norm);
    }
    __syncthreads();
    ELEMENT
    dw[i] = dw[i] * factor;  // in double: of a norm beyond float, too
}

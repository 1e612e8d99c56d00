// Hidden layers with ReLU (the other activations are in activated.cu), and what all of them need.
//
// A ReLU output that is zero has a zero gradient, whether the unit was off or dropped: the backward pass needs only
// the output and scale = 1 / keep_ratio, no mask.

__device__ __forceinline__ real dropped_relu(real value, bool kept, real scale)
{
    return value <= 0 || !kept ? (real)0 : value * scale;  // NaN stays NaN
}

struct ReluUnit {
    stored* out;
    real scale;

    __device__ __forceinline__ void set(i64 i, real x, bool kept) const { out[i] = dropped_relu(x, kept, scale); }
    __device__ __forceinline__ void set_neighbours(i64 mine, const real (&x)[EACH], const bool (&kept)[EACH]) const
    {
        SeveralStored some;
        for (int k = 0; k < EACH; ++k) some.at[k] = dropped_relu(x[k], kept[k], scale);
        ((SeveralStored*)out)[mine] = some;
    }
};

struct ReluSlope {
    const stored* out;
    real scale;

    __device__ __forceinline__ real times(i64 i, real dout) const { return out[i] > 0 ? dout * scale : (real)0; }
    __device__ __forceinline__ Several times_neighbours(i64 mine, const SeveralStored& dout) const
    {
        const SeveralStored some = ((const SeveralStored*)out)[mine];
        Several gradient;
        for (int k = 0; k < EACH; ++k) gradient.at[k] = some.at[k] > 0 ? dout.at[k] * scale : (real)0;
        return gradient;
    }
};

KERNEL(256) bias_relu(
    stored* out, real scale, const stored* z, const real* b, i64 size, int width, int aligned, DROPOUT_PARAMETERS)
{
    __shared__ u64 words[EACH * THREADS / 16][4];
    bias_each(ReluUnit{out, scale}, z, b, size, width, aligned, DROPOUT, words);
}

KERNEL(1024) bias_relu_backward(
    stored* dz, real* parts, const stored* dout, const stored* out, real scale, int rows, int width, int share)
{
    bias_gradient_each(ReluSlope{out, scale}, dz, parts, dout, rows, width, share);
}

KERNEL(256) bias_relu_backward_aligned(
    stored* dz, real* parts, const stored* dout, const stored* out, real scale, int rows, int width, int share)
{
    bias_gradient_neighbours(ReluSlope{out, scale}, dz, parts, dout, rows, width, share);
}

// sums[m] = the sum of column m of parts (count, width), from the first to the last.
KERNEL(256) sum_of_parts(real* sums, const real* parts, int count, int width)
{
    const int m = blockIdx.x * blockDim.x + threadIdx.x;
    if (m >= width) return;
    real sum = 0;
    for (int n = 0; n < count; ++n) sum += parts[n * width + m];
    sums[m] = sum;
}

KERNEL(1024) batchnorm_relu(
    stored* out, real scale, real* x_hat, real* inv_std, const stored* z, const real* b, const real* gamma, const real* beta,
    real* running_mean, real* running_var, int rows, int width, real momentum, real eps, DROPOUT_PARAMETERS)
{
    const ReluUnit unit{out, scale};
    batchnorm_each(unit, x_hat, inv_std, z, b, gamma, beta, running_mean, running_var, rows, width, momentum, eps, DROPOUT);
}

KERNEL(1024) batchnorm_relu_backward(
    stored* dz, real* db, real* dgamma, real* dbeta, const stored* dout, const stored* out, real scale, const real* x_hat,
    const real* inv_std, const real* gamma, int rows, int width)
{
    batchnorm_gradient(ReluSlope{out, scale}, dz, db, dgamma, dbeta, dout, x_hat, inv_std, gamma, rows, width);
}

KERNEL(256) layernorm_relu(
    stored* out, real scale, real* x_hat, real* inv_std, const stored* z, const real* b, const real* gamma, const real* beta,
    int width, real eps, DROPOUT_PARAMETERS)
{
    layernorm_each(ReluUnit{out, scale}, x_hat, inv_std, z, b, gamma, beta, width, eps, DROPOUT);
}

KERNEL(256) layernorm_relu_backward(
    real* dz, real* dy, const stored* dout, const stored* out, real scale, const real* x_hat, const real* inv_std,
    const real* gamma, int width)
{
    layernorm_gradient(ReluSlope{out, scale}, dz, dy, dout, x_hat, inv_std, gamma, width);
}

// Layer norm's db = sum_n dz, dgamma = sum_n dy x_hat, dbeta = sum_n dy, of what `layernorm_gradient` wrote.
KERNEL(1024) layernorm_sums(
    real* db, real* dgamma, real* dbeta, const real* dz, const real* dy, const real* x_hat, int rows, int width)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    real bias = 0, scale = 0, shift = 0;
    if (m < width)
        for (int n = threadIdx.y; n < rows; n += SIDE) {
            const i64 i = (i64)n * width + m;
            bias += dz[i];
            scale += dy[i] * x_hat[i];
            shift += dy[i];
        }
    bias = sum_of_column(bias, shared);
    scale = sum_of_column(scale, shared);
    shift = sum_of_column(shift, shared);
    if (m < width && threadIdx.y == 0) {
        db[m] = bias;
        dgamma[m] = scale;
        dbeta[m] = shift;
    }
}

// out = z + b: the end of an affine layer that nothing else follows. out may be z.
KERNEL(256) add_bias(real* out, const real* z, const real* b, i64 size, int width)
{
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) out[i] = z[i] + b[column_of(i, width)];
}

// db (gridDim.y, width) = the sums of dout over its rows, `share` at a time.
KERNEL(1024) bias_gradient(real* db, const real* dout, int rows, int width, int share)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const int m = blockIdx.x * SIDE + threadIdx.x;
    const int begin = blockIdx.y * share, end = rows - begin < share ? rows : begin + share;
    real sum = 0;
    if (m < width)
        for (int n = begin + threadIdx.y; n < end; n += SIDE) sum += dout[(i64)n * width + m];
    sum = sum_of_column(sum, shared);
    if (m < width && threadIdx.y == 0) db[blockIdx.y * width + m] = sum;
}

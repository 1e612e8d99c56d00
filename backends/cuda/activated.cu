// Hidden layers with the element-wise activation ACTIVATION, which keeps KEPT arrays (activation.cu): a module for each,
// compiled when its first layer runs. ReLU has kernels of its own, hidden.cu.

// What it keeps is what the reference keeps; `hidden`, the output before dropout, and `mask` only with dropout.
struct Unit {
    real *out, *hidden, *first, *second, *mask;
    real scale;

    __device__ __forceinline__ void set(i64 i, real x, bool kept) const
    {
        const real value = ACTIVATION::of(x), factor = kept ? scale : (real)0;
#if KEPT > 0
        first[i] = ACTIVATION::first(x);
#endif
#if KEPT > 1
        second[i] = ACTIVATION::second(x);
#endif
        if (mask) hidden[i] = value, mask[i] = factor;
        out[i] = mask ? value * factor : value;
    }
};
#define UNIT_PARAMETERS real *out, real *hidden, real *first, real *second, real *mask, real scale
#define UNIT Unit{out, hidden, first, second, mask, scale}

struct Slope {
    const real *first, *second, *mask;

    __device__ __forceinline__ real times(i64 i, real dout) const
    {
        const real gradient = dout * ACTIVATION::slope_of(first[i], KEPT > 1 ? second[i] : (real)0);
        return mask ? gradient * mask[i] : gradient;
    }
};
#define SLOPE_PARAMETERS const real *first, const real *second, const real *mask
#define SLOPE Slope{first, second, mask}

KERNEL(256) bias_activation(UNIT_PARAMETERS, const real* z, const real* b, i64 size, int width, DROPOUT_PARAMETERS)
{
    __shared__ u64 words[EACH * THREADS / 16][4];
    bias_each(UNIT, z, b, size, width, DROPOUT, words);
}

// dz, and db (gridDim.y, width) = its sums over the rows, `share` at a time. dz may be dout.
KERNEL(1024) bias_activation_backward(
    real* dz, real* db, const real* dout, SLOPE_PARAMETERS, int rows, int width, int share)
{
    __shared__ real shared[SIDE][SIDE + 1];
    const Slope slope = SLOPE;
    const int m = blockIdx.x * SIDE + threadIdx.x;
    const int begin = blockIdx.y * share, end = rows - begin < share ? rows : begin + share;
    real sum = 0;
    if (m < width)
        for (int top = begin + threadIdx.y; top < end; top += EACH * SIDE) {
            real gradient[EACH];
            for (int k = 0; k < EACH; ++k) {  // all are asked for before the first is needed
                const i64 i = (i64)(top + k * SIDE < end ? top + k * SIDE : top) * width + m;
                gradient[k] = slope.times(i, dout[i]);
            }
            for (int k = 0; k < EACH && top + k * SIDE < end; ++k) {
                dz[(i64)(top + k * SIDE) * width + m] = gradient[k];
                sum += gradient[k];
            }
        }
    sum = sum_of_column(sum, shared);
    if (m < width && threadIdx.y == 0) db[blockIdx.y * width + m] = sum;
}

KERNEL(1024) batchnorm_activation(
    UNIT_PARAMETERS, real* x_hat, real* inv_std, const real* z, const real* b, const real* gamma, const real* beta,
    real* running_mean, real* running_var, int rows, int width, real momentum, real eps, DROPOUT_PARAMETERS)
{
    batchnorm_each(UNIT, x_hat, inv_std, z, b, gamma, beta, running_mean, running_var, rows, width, momentum, eps, DROPOUT);
}

KERNEL(1024) batchnorm_activation_backward(
    real* dz, real* db, real* dgamma, real* dbeta, const real* dout, SLOPE_PARAMETERS, const real* x_hat,
    const real* inv_std, const real* gamma, int rows, int width)
{
    batchnorm_gradient(SLOPE, dz, db, dgamma, dbeta, dout, x_hat, inv_std, gamma, rows, width);
}

KERNEL(256) layernorm_activation(
    UNIT_PARAMETERS, real* x_hat, real* inv_std, const real* z, const real* b, const real* gamma, const real* beta,
    int width, real eps, DROPOUT_PARAMETERS)
{
    layernorm_each(UNIT, x_hat, inv_std, z, b, gamma, beta, width, eps, DROPOUT);
}

KERNEL(256) layernorm_activation_backward(
    real* dz, real* dy, const real* dout, SLOPE_PARAMETERS, const real* x_hat, const real* inv_std, const real* gamma,
    int width)
{
    layernorm_gradient(SLOPE, dz, dy, dout, x_hat, inv_std, gamma, width);
}

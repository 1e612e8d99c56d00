// Hidden layers with the element-wise activation ACTIVATION, which keeps KEPT arrays (activation.cu): a module for each,
// compiled when its first layer runs. ReLU has kernels of its own, hidden.cu.

// What it keeps is what the reference keeps: `hidden`, the output before dropout, only where that is not `out`, and
// `mask` only with dropout.
struct Unit {
    stored* out;
    real *hidden, *first, *second, *mask, scale;

    __device__ __forceinline__ void set(i64 i, real x, bool kept) const
    {
        const real value = ACTIVATION::of(x), factor = kept ? scale : (real)0;
#if KEPT > 0
        first[i] = ACTIVATION::first(x);
#endif
#if KEPT > 1
        second[i] = ACTIVATION::second(x);
#endif
        if (hidden) hidden[i] = value;
        if (mask) mask[i] = factor;
        out[i] = mask ? value * factor : value;
    }

    __device__ __forceinline__ void set_neighbours(i64 mine, const real (&x)[EACH], const bool (&kept)[EACH]) const
    {
        SeveralStored some;
        Several before, one, two, factor;
        const Unit here{some.at, before.at, one.at, two.at, factor.at, scale};  // without dropout, all factors are 1
        for (int k = 0; k < EACH; ++k) here.set(k, x[k], kept[k]);
        ((SeveralStored*)out)[mine] = some;
        if (hidden) ((Several*)hidden)[mine] = before;
        if (KEPT > 0) ((Several*)first)[mine] = one;
        if (KEPT > 1) ((Several*)second)[mine] = two;
        if (mask) ((Several*)mask)[mine] = factor;
    }
};
#define UNIT_PARAMETERS stored *out, real *hidden, real *first, real *second, real *mask, real scale
#define UNIT Unit{out, hidden, first, second, mask, scale}

struct Slope {
    const real *first, *second, *mask;

    __device__ __forceinline__ real times(i64 i, real dout) const
    {
        const real gradient = dout * ACTIVATION::slope_of(first[i], KEPT > 1 ? second[i] : (real)0);
        return mask ? gradient * mask[i] : gradient;
    }

    __device__ __forceinline__ Several times_neighbours(i64 mine, const SeveralStored& dout) const
    {
        const Several one = ((const Several*)first)[mine];
        const Several two = KEPT > 1 ? ((const Several*)second)[mine] : Several{};
        const Several factor = mask ? ((const Several*)mask)[mine] : Several{1, 1, 1, 1};
        const Slope here{one.at, two.at, factor.at};
        Several gradient;
        for (int k = 0; k < EACH; ++k) gradient.at[k] = here.times(k, dout.at[k]);
        return gradient;
    }
};
#define SLOPE_PARAMETERS const real *first, const real *second, const real *mask
#define SLOPE Slope{first, second, mask}

KERNEL(256) bias_activation(
    UNIT_PARAMETERS, const stored* z, const real* b, i64 size, int width, int aligned, DROPOUT_PARAMETERS)
{
    __shared__ u64 words[EACH * THREADS / 16][4];
    bias_each(UNIT, z, b, size, width, aligned, DROPOUT, words);
}

KERNEL(1024) bias_activation_backward(
    stored* dz, real* parts, const stored* dout, SLOPE_PARAMETERS, int rows, int width, int share)
{
    bias_gradient_each(SLOPE, dz, parts, dout, rows, width, share);
}

KERNEL(256) bias_activation_backward_aligned(
    stored* dz, real* parts, const stored* dout, SLOPE_PARAMETERS, int rows, int width, int share)
{
    bias_gradient_neighbours(SLOPE, dz, parts, dout, rows, width, share);
}

KERNEL(1024) batchnorm_activation(
    UNIT_PARAMETERS, real* x_hat, real* inv_std, const stored* z, const real* b, const real* gamma, const real* beta,
    real* running_mean, real* running_var, int rows, int width, real momentum, real eps, DROPOUT_PARAMETERS)
{
    batchnorm_each(UNIT, x_hat, inv_std, z, b, gamma, beta, running_mean, running_var, rows, width, momentum, eps, DROPOUT);
}

KERNEL(1024) batchnorm_activation_backward(
    stored* dz, real* db, real* dgamma, real* dbeta, const stored* dout, SLOPE_PARAMETERS, const real* x_hat,
    const real* inv_std, const real* gamma, int rows, int width)
{
    batchnorm_gradient(SLOPE, dz, db, dgamma, dbeta, dout, x_hat, inv_std, gamma, rows, width);
}

KERNEL(256) layernorm_activation(
    UNIT_PARAMETERS, real* x_hat, real* inv_std, const stored* z, const real* b, const real* gamma, const real* beta,
    int width, real eps, DROPOUT_PARAMETERS)
{
    layernorm_each(UNIT, x_hat, inv_std, z, b, gamma, beta, width, eps, DROPOUT);
}

KERNEL(256) layernorm_activation_backward(
    real* dz, real* dy, const stored* dout, SLOPE_PARAMETERS, const real* x_hat, const real* inv_std, const real* gamma,
    int width)
{
    layernorm_gradient(SLOPE, dz, dy, dout, x_hat, inv_std, gamma, width);
}

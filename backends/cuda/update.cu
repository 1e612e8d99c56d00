// The kernels of the update rules in rules.cu, over the flat buffers: one launch for the whole network.
// The rate is read on the device, and so is the number of updates made before.

// A rule has the first MOMENTS of m and v, the others are null. `rounded` gets the weights in bfloat16, for products,
// unless it is null. One thread computes what all weights of the block share while the others load theirs.
#define RULE_PARAMETERS \
    real *w, const real *dw, real *m, real *v, bf16 *rounded, i64 size, const i64 *step, const double *rate, \
        double constant1, double constant2, double constant3

template <class Rule>
__device__ __forceinline__ void update(RULE_PARAMETERS)
{
    const int MOMENTS = Rule::MOMENTS;
    const i64 begin = (i64)blockIdx.x * EACH * THREADS + threadIdx.x;
    real weight[EACH], gradient[EACH], first[EACH], second[EACH];
    for (int k = 0; k < EACH; ++k) {
        const i64 i = begin + k * THREADS;
        if (i >= size) break;
        weight[k] = w[i], gradient[k] = dw[i];
        first[k] = MOMENTS > 0 ? m[i] : (real)0, second[k] = MOMENTS > 1 ? v[i] : (real)0;
    }
    __shared__ Rule shared;
    const double constants[3] = {constant1, constant2, constant3};
    if (threadIdx.x == 0) shared = Rule::of(step ? *step : 0, *rate, constants);
    __syncthreads();
    for (int k = 0; k < EACH; ++k) {
        const i64 i = begin + k * THREADS;
        if (i >= size) break;
        shared.apply(weight[k], first[k], second[k], gradient[k]);
        w[i] = weight[k];
        if (rounded) rounded[i] = (float)weight[k];
        if (MOMENTS > 0) m[i] = first[k];
        if (MOMENTS > 1) v[i] = second[k];
    }
}

#define UPDATE_RULE(name, Struct) \
    KERNEL(256) name(RULE_PARAMETERS) \
    { \
        update<Struct>(w, dw, m, v, rounded, size, step, rate, constant1, constant2, constant3); \
    }

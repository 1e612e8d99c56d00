// Optimizer rules over the flat buffers: one launch for the whole network, the formulas of rules.cu.
// The rate is read on the device, and so is the number of updates made before.

#define ELEMENT \
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= size) return;

KERNEL(256) sgd(real* w, const real* dw, i64 size, const double* rate)
{
    ELEMENT
    apply_sgd(w[i], dw[i], *rate);
}

KERNEL(256) momentum(real* w, const real* dw, real* v, i64 size, const double* rate, real mu)
{
    ELEMENT
    apply_momentum(w[i], v[i], dw[i], *rate, mu);
}

KERNEL(256) nesterov(real* w, const real* dw, real* v, i64 size, const double* rate, real mu)
{
    ELEMENT
    apply_nesterov(w[i], v[i], dw[i], *rate, mu);
}

KERNEL(256) adagrad(real* w, const real* dw, real* c, i64 size, const double* rate, real epsilon)
{
    ELEMENT
    apply_adagrad(w[i], c[i], dw[i], *rate, epsilon);
}

KERNEL(256) rmsprop(
    real* w, const real* dw, real* c, i64 size, const double* rate, real rho, real rest, real epsilon)
{
    ELEMENT
    apply_rmsprop(w[i], c[i], dw[i], *rate, rho, rest, epsilon);
}

KERNEL(256) adam(
    real* w, const real* dw, real* m, real* v, i64 size, const i64* step, const double* rate, double beta1, double beta2,
    double epsilon)
{
    const i64 begin = (i64)blockIdx.x * EACH * THREADS + threadIdx.x;
    real weight[EACH], gradient[EACH], first[EACH], second[EACH];
    for (int k = 0; k < EACH; ++k) {
        const i64 i = begin + k * THREADS;
        if (i >= size) break;
        weight[k] = w[i], gradient[k] = dw[i], first[k] = m[i], second[k] = v[i];
    }
    __shared__ Adam shared;
    if (threadIdx.x == 0) shared = adam_of(*step, *rate, beta1, beta2, epsilon);
    __syncthreads();
    for (int k = 0; k < EACH; ++k) {
        const i64 i = begin + k * THREADS;
        if (i >= size) break;
        apply_adam(weight[k], first[k], second[k], gradient[k], shared);
        w[i] = weight[k], m[i] = first[k], v[i] = second[k];
    }
}

// What goes with a rule: the functions of fcnet.optim.limits.

KERNEL(256) decay_weights(real* w, i64 size, const double* rate, double decay)
{
    ELEMENT
    apply_decay(w[i], *rate * decay);
}

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

// Optimizer rules over the flat buffers: the formulas of fcnet.optim.rules, one launch for the whole network.
// The rate is read on the device, and so is the number of updates made before.

#define ELEMENT \
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= size) return;

KERNEL(256) sgd(real* w, const real* dw, i64 size, const double* rate)
{
    ELEMENT
    w[i] -= (real)*rate * dw[i];
}

KERNEL(256) momentum(real* w, const real* dw, real* v, i64 size, const double* rate, real mu)
{
    ELEMENT
    v[i] = mu * v[i] - (real)*rate * dw[i];
    w[i] += v[i];
}

KERNEL(256) nesterov(real* w, const real* dw, real* v, i64 size, const double* rate, real mu)
{
    ELEMENT
    const real change = (real)*rate * dw[i];
    v[i] = mu * v[i] - change;
    w[i] += mu * v[i] - change;
}

KERNEL(256) adagrad(real* w, const real* dw, real* c, i64 size, const double* rate, real epsilon)
{
    ELEMENT
    c[i] += dw[i] * dw[i];
    w[i] -= (real)*rate * (dw[i] / (sqrt(c[i]) + epsilon));
}

KERNEL(256) rmsprop(
    real* w, const real* dw, real* c, i64 size, const double* rate, real rho, real rest, real epsilon)
{
    ELEMENT
    c[i] = rho * c[i] + rest * (dw[i] * dw[i]);
    w[i] -= (real)*rate * (dw[i] / (sqrt(c[i]) + epsilon));
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
    __shared__ real alpha, epsilon_hat;
    if (threadIdx.x == 0) {  // the powers once a block, in double: float would lose the digits of 1 - beta2^t
        const double t = *step + 1;
        const double root = sqrt(1 - pow(beta2, t));
        alpha = *rate * root / (1 - pow(beta1, t));
        epsilon_hat = epsilon * root;
    }
    __syncthreads();
    for (int k = 0; k < EACH; ++k) {
        const i64 i = begin + k * THREADS;
        if (i >= size) break;
        first[k] = (real)beta1 * first[k] + (real)(1 - beta1) * gradient[k];
        second[k] = (real)beta2 * second[k] + (real)(1 - beta2) * (gradient[k] * gradient[k]);
        m[i] = first[k], v[i] = second[k];
        w[i] = weight[k] - alpha * (first[k] / (sqrt(second[k]) + epsilon_hat));
    }
}

// What goes with a rule: the functions of fcnet.optim.limits.

KERNEL(256) decay_weights(real* w, i64 size, const double* rate, double decay)
{
    ELEMENT
    w[i] -= (real)(*rate * decay) * w[i];
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

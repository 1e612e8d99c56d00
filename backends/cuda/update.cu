// Optimizer rules over the flat buffers: the formulas of fcnet.optim.rules, one launch for the whole network.
// The rate is read on the device, and so is the number of updates made before.

#define ELEMENT \
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= size) return;

extern "C" __global__ void sgd(real* w, const real* dw, i64 size, const double* rate)
{
    ELEMENT
    w[i] -= (real)*rate * dw[i];
}

extern "C" __global__ void momentum(real* w, const real* dw, real* v, i64 size, const double* rate, real mu)
{
    ELEMENT
    v[i] = mu * v[i] - (real)*rate * dw[i];
    w[i] += v[i];
}

extern "C" __global__ void rmsprop(
    real* w, const real* dw, real* c, i64 size, const double* rate, real rho, real rest, real epsilon)
{
    ELEMENT
    c[i] = rho * c[i] + rest * (dw[i] * dw[i]);
    w[i] -= (real)*rate * (dw[i] / (sqrt(c[i]) + epsilon));
}

extern "C" __global__ void adam(
    real* w, const real* dw, real* m, real* v, i64 size, const i64* step, const double* rate, double beta1, double beta2,
    double epsilon)
{
    __shared__ real alpha, epsilon_hat;
    if (threadIdx.x == 0) {  // the powers once a block, in double: float would lose the digits of 1 - beta2^t
        const double t = *step + 1;
        const double root = sqrt(1 - pow(beta2, t));
        alpha = *rate * root / (1 - pow(beta1, t));
        epsilon_hat = epsilon * root;
    }
    __syncthreads();
    ELEMENT
    m[i] = (real)beta1 * m[i] + (real)(1 - beta1) * dw[i];
    v[i] = (real)beta2 * v[i] + (real)(1 - beta2) * (dw[i] * dw[i]);
    w[i] -= alpha * (m[i] / (sqrt(v[i]) + epsilon_hat));
}

// The formulas of fcnet.optim.rules for one weight, whichever kernel makes the update: the same bits as there.

__device__ __forceinline__ void apply_sgd(real& w, real dw, real rate)
{
    w = add(w, -mul(dw, rate));
}

__device__ __forceinline__ void apply_momentum(real& w, real& v, real dw, real rate, real mu)
{
    v = flushed(add(mul(v, mu), -mul(dw, rate)));
    w = add(w, v);
}

__device__ __forceinline__ void apply_nesterov(real& w, real& v, real dw, real rate, real mu)
{
    const real change = mul(dw, rate);
    v = flushed(add(mul(v, mu), -change));
    w = add(add(w, -change), mul(v, mu));
}

__device__ __forceinline__ void apply_adagrad(real& w, real& c, real dw, real rate, real epsilon)
{
    c = add(c, mul(dw, dw));
    w = add(w, -mul(dw / add(sqrt(c), epsilon), rate));
}

// `rest` is 1 - rho.
__device__ __forceinline__ void apply_rmsprop(real& w, real& c, real dw, real rate, real rho, real rest, real epsilon)
{
    c = flushed(add(mul(c, rho), mul(mul(dw, dw), rest)));
    w = add(w, -mul(dw / add(sqrt(c), epsilon), rate));
}

// What Adam's weights share in an update.
struct Adam {
    real beta1, rest1, beta2, rest2, alpha, epsilon_hat;
};

// base^exponent by squaring: a sixth of the time of `pow`, for which a whole block would wait.
__device__ __forceinline__ double power(double base, i64 exponent)
{
    double result = 1;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

// In double: float would lose the digits of 1 - beta2^t. `step` is the number of updates made before.
__device__ __forceinline__ Adam adam_of(i64 step, double rate, double beta1, double beta2, double epsilon)
{
    const double root = sqrt(1 - power(beta2, step + 1));
    const double alpha = rate * root / (1 - power(beta1, step + 1));
    return {(real)beta1, (real)(1 - beta1), (real)beta2, (real)(1 - beta2), (real)alpha, (real)(epsilon * root)};
}

__device__ __forceinline__ void apply_adam(real& w, real& m, real& v, real dw, const Adam& adam)
{
    m = flushed(add(mul(m, adam.beta1), mul(dw, adam.rest1)));
    v = flushed(add(mul(v, adam.beta2), mul(mul(dw, dw), adam.rest2)));
    w = add(w, -mul(m / add(sqrt(v), adam.epsilon_hat), adam.alpha));
}

__device__ __forceinline__ void apply_decay(real& w, real share)
{
    w = flushed(add(w, -mul(w, share)));
}

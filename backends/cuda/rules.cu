// The formulas of fcnet.optim.rules for one weight, whichever kernel makes the update: the same bits as there, where in
// float what is denormal counts as 0 (common.cu).
//
// A rule is a struct of what all weights share, made by `of` from the number of updates made before, the rate and the
// rule's constants in the order of the reference's signature; `apply` updates one weight and its MOMENTS moments; the
// other arguments are unused. From its line UPDATE_RULE(name, struct) come its own kernel (update.cu, optim.py)
// and its place in the persistent kernel (persistent.py).

#ifndef UPDATE_RULE
#define UPDATE_RULE(name, Struct)
#endif

// dw limited to ±L, so that its square does not overflow; NaN if it is not finite. L: see `gradient_limit` in
// backends/rules.py, with its headroom of the mean or the sum of squares that a rule makes.
const int MEAN_OF_SQUARES = 1, SUM_OF_SQUARES = 16;

template <int HEADROOM>
__device__ __forceinline__ real limited(real dw)
{
    const real limit = (real)(sizeof(real) == sizeof(float) ? 1.8446744073709552e19 : 1.3407807929942597e154)
                       / (real)(1 << HEADROOM);
    return add(dw > limit ? limit : dw < -limit ? -limit : dw, -add(dw, -dw));
}

// w = w - rate dw
struct Sgd {
    static const int MOMENTS = 0;
    real rate;

    static __device__ __forceinline__ Sgd of(i64, double rate, const double*) { return {(real)rate}; }
    __device__ __forceinline__ void apply(real& w, real&, real&, real dw) const { w = add(w, -mul(dw, rate)); }
};
UPDATE_RULE(sgd, Sgd)

// v = mu v - rate dw; w = w + v
struct Momentum {
    static const int MOMENTS = 1;
    real rate, mu;

    static __device__ __forceinline__ Momentum of(i64, double rate, const double* constants)
    {
        return {(real)rate, (real)constants[0]};
    }
    __device__ __forceinline__ void apply(real& w, real& v, real&, real dw) const
    {
        v = flushed(add(mul(v, mu), -mul(dw, rate)));
        w = add(w, v);
    }
};
UPDATE_RULE(momentum, Momentum)

// v = mu v - rate dw; w = w - rate dw + mu v, v already new
struct Nesterov {
    static const int MOMENTS = 1;
    real rate, mu;

    static __device__ __forceinline__ Nesterov of(i64, double rate, const double* constants)
    {
        return {(real)rate, (real)constants[0]};
    }
    __device__ __forceinline__ void apply(real& w, real& v, real&, real dw) const
    {
        const real change = mul(dw, rate);
        v = flushed(add(mul(v, mu), -change));
        w = add(add(w, -change), mul(v, mu));
    }
};
UPDATE_RULE(nesterov, Nesterov)

// c = c + dw^2; w = w - rate dw / (sqrt(c) + epsilon)
struct Adagrad {
    static const int MOMENTS = 1;
    real rate, epsilon;

    static __device__ __forceinline__ Adagrad of(i64, double rate, const double* constants)
    {
        return {(real)rate, (real)constants[0]};
    }
    __device__ __forceinline__ void apply(real& w, real& c, real&, real dw) const
    {
        const real g = limited<SUM_OF_SQUARES>(dw);
        c = add(c, mul(g, g));
        w = add(w, -mul(g / add(sqrt(c), epsilon), rate));
    }
};
UPDATE_RULE(adagrad, Adagrad)

// c = rho c + (1 - rho) dw^2; w = w - rate dw / (sqrt(c) + epsilon)
struct Rmsprop {
    static const int MOMENTS = 1;
    real rate, rho, rest, epsilon;  // rest = 1 - rho

    static __device__ __forceinline__ Rmsprop of(i64, double rate, const double* constants)
    {
        return {(real)rate, (real)constants[0], (real)(1 - constants[0]), (real)constants[1]};
    }
    __device__ __forceinline__ void apply(real& w, real& c, real&, real dw) const
    {
        const real g = limited<MEAN_OF_SQUARES>(dw);
        c = flushed(add(mul(c, rho), mul(mul(g, g), rest)));
        w = add(w, -mul(g / add(sqrt(c), epsilon), rate));
    }
};
UPDATE_RULE(rmsprop, Rmsprop)

// base^exponent by squaring: a sixth of the time of `pow`, for which a whole block would wait.
__device__ __forceinline__ double power(double base, i64 exponent)
{
    double result = 1;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

// m = beta1 m + (1 - beta1) dw; v = beta2 v + (1 - beta2) dw^2; w = w - alpha m / (sqrt(v) + epsilon_hat)
// alpha = rate sqrt(1 - beta2^t) / (1 - beta1^t), epsilon_hat = epsilon sqrt(1 - beta2^t), t = step + 1
struct Adam {
    static const int MOMENTS = 2;
    real beta1, rest1, beta2, rest2, alpha, epsilon_hat;

    // In double: float would lose the digits of 1 - beta2^t.
    static __device__ __forceinline__ Adam of(i64 step, double rate, const double* constants)
    {
        const double beta1 = constants[0], beta2 = constants[1];
        const double root = sqrt(1 - power(beta2, step + 1));
        const double alpha = rate * root / (1 - power(beta1, step + 1));
        return {(real)beta1, (real)(1 - beta1), (real)beta2, (real)(1 - beta2), (real)alpha, (real)(constants[2] * root)};
    }
    __device__ __forceinline__ void apply(real& w, real& m, real& v, real dw) const
    {
        const real g = limited<MEAN_OF_SQUARES>(dw);
        m = flushed(add(mul(m, beta1), mul(g, rest1)));
        v = flushed(add(mul(v, beta2), mul(mul(g, g), rest2)));
        w = add(w, -mul(m / add(sqrt(v), epsilon_hat), alpha));
    }
};
UPDATE_RULE(adam, Adam)

// w = w - rate sign(beta1 m + (1 - beta1) dw); m = beta2 m + (1 - beta2) dw
struct Lion {
    static const int MOMENTS = 1;
    real rate, beta1, beta2, rest2;

    static __device__ __forceinline__ Lion of(i64, double rate, const double* constants)
    {
        return {(real)rate, (real)constants[0], (real)constants[1], (real)(1 - constants[1])};
    }
    __device__ __forceinline__ void apply(real& w, real& m, real&, real dw) const
    {
        const real blend = add(mul(add(m, -dw), beta1), dw);
        w = add(w, -mul(blend > 0 ? (real)1 : blend < 0 ? (real)-1 : blend == 0 ? (real)0 : blend, rate));  // NaN shows
        m = flushed(add(mul(m, beta2), mul(dw, rest2)));
    }
};
UPDATE_RULE(lion, Lion)

__device__ __forceinline__ void apply_decay(real& w, real share)
{
    w = flushed(add(w, -mul(w, share)));
}

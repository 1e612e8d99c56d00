// The activations of fcnet.functional.activation that act element by element: a struct each, `of` the function and
// `slope` its derivative. From its line ELEMENTWISE(name, struct) comes its place in the kernels. NaN stays NaN.

#ifndef ELEMENTWISE
#define ELEMENTWISE(name, Struct)
#endif
#define STATIC static __device__ __forceinline__

struct Relu {
    STATIC real of(real x) { return x <= 0 ? (real)0 : x; }
    STATIC real slope(real x) { return x > 0 ? (real)1 : (real)0; }
};
ELEMENTWISE(relu, Relu)

template <class Activation> constexpr bool is_relu = false;
template <> constexpr bool is_relu<Relu> = true;

struct LeakyRelu {
    STATIC real of(real x) { return x > 0 ? x : (real)0.01 * x; }
    STATIC real slope(real x) { return x > 0 ? (real)1 : (real)0.01; }
};
ELEMENTWISE(leaky_relu, LeakyRelu)

struct Elu {
    STATIC real of(real x) { return x > 0 ? x : expm1(x); }
    STATIC real slope(real x) { return x > 0 ? (real)1 : exp(x); }
};
ELEMENTWISE(elu, Elu)

struct Sigmoid {
    STATIC real of(real x) { return 1 / (1 + exp(-x)); }
    STATIC real slope(real x) { return of(x) * (1 - of(x)); }
};
ELEMENTWISE(sigmoid, Sigmoid)

struct Tanh {
    STATIC real of(real x) { return tanh(x); }
    STATIC real slope(real x) { return 1 - tanh(x) * tanh(x); }
};
ELEMENTWISE(tanh, Tanh)

// Of x sigmoid(h(x)); `steepness` is x h'(x).
STATIC real gated_slope(real h, real steepness)
{
    const real open = Sigmoid::of(h);
    return open * (1 + (1 - open) * steepness);
}

struct Gelu {  // in its tanh form
    static constexpr real SPREAD = 0.7978845608028654;  // sqrt(2 / pi)

    // Beyond 20 the gate is 0 or 1, and a larger cube could overflow.
    STATIC real near(real x) { return x > 20 ? (real)20 : x < -20 ? (real)-20 : x; }
    STATIC real h(real x) { return 2 * SPREAD * near(x) * (1 + (real)0.044715 * near(x) * near(x)); }
    STATIC real of(real x) { return x * Sigmoid::of(h(x)); }
    STATIC real slope(real x) { return gated_slope(h(x), 3 * h(x) - (real)3.1915382432114616 * near(x)); }  // 4 SPREAD
};
ELEMENTWISE(gelu, Gelu)

struct Silu {
    STATIC real of(real x) { return x * Sigmoid::of(x); }
    STATIC real slope(real x) { return gated_slope(x, x); }
};
ELEMENTWISE(silu, Silu)

struct Softplus {
    STATIC real of(real x) { return (x > 0 ? x : (real)0) + log1p(exp(-fabs(x))); }
    STATIC real slope(real x) { return Sigmoid::of(x); }
};
ELEMENTWISE(softplus, Softplus)

struct Identity {
    STATIC real of(real x) { return x; }
    STATIC real slope(real) { return 1; }
};
ELEMENTWISE(identity, Identity)

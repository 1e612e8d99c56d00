// The activations of fcnet.functional.activation that act element by element: a struct each, `of` the function and
// `slope` its derivative. From its line ELEMENTWISE(name, struct, kept) comes its place in the kernels. NaN stays NaN.
//
// A fused hidden layer keeps what the reference keeps, and has the derivative from that: `slope_of(first, second)`. With
// `kept` 0 `first` is the output; with 1 there is the array `first(x)`, with 2 `second(x)`, too.

#ifndef ELEMENTWISE
#define ELEMENTWISE(name, Struct, kept)
#endif
#define STATIC static __device__ __forceinline__

struct Relu {
    STATIC real of(real x) { return x <= 0 ? (real)0 : x; }
    STATIC real slope(real x) { return x > 0 ? (real)1 : (real)0; }
};
ELEMENTWISE(relu, Relu, 0)

template <class Activation> constexpr bool is_relu = false;
template <> constexpr bool is_relu<Relu> = true;

// What is kept is the derivative.
template <class Activation> struct KeepsSlope {
    STATIC real first(real x) { return Activation::slope(x); }
    STATIC real slope_of(real first, real) { return first; }
};

struct LeakyRelu : KeepsSlope<LeakyRelu> {
    STATIC real of(real x) { return x > 0 ? x : (real)0.01 * x; }
    STATIC real slope(real x) { return x > 0 ? (real)1 : (real)0.01; }
};
ELEMENTWISE(leaky_relu, LeakyRelu, 1)

struct Elu {
    STATIC real of(real x) { return x > 0 ? x : expm1(x); }
    STATIC real slope(real x) { return x > 0 ? (real)1 : exp(x); }
    STATIC real first(real x) { return x > 0 ? (real)0 : expm1(x); }
    STATIC real slope_of(real first, real) { return first + 1; }
};
ELEMENTWISE(elu, Elu, 1)

struct Sigmoid {
    STATIC real of(real x) { return 1 / (1 + exp(-x)); }
    STATIC real slope(real x) { return slope_of(of(x), 0); }
    STATIC real slope_of(real out, real) { return out * (1 - out); }
};
ELEMENTWISE(sigmoid, Sigmoid, 0)

struct Tanh {
    STATIC real of(real x) { return tanh(x); }
    STATIC real slope(real x) { return slope_of(of(x), 0); }
    STATIC real slope_of(real out, real) { return 1 - out * out; }
};
ELEMENTWISE(tanh, Tanh, 0)

// x sigmoid(h(x)); `first` is x h'(x), and `second` the gate.
template <class Activation> struct Gated {
    STATIC real second(real x) { return Sigmoid::of(Activation::h(x)); }
    STATIC real of(real x) { return x * second(x); }
    STATIC real slope(real x) { return slope_of(Activation::first(x), second(x)); }
    STATIC real slope_of(real first, real second) { return second * (1 + (1 - second) * first); }
};

struct Gelu : Gated<Gelu> {  // in its tanh form
    static constexpr real SPREAD = 0.7978845608028654;  // sqrt(2 / pi)

    // Beyond 20 the gate is 0 or 1, and a larger cube could overflow.
    STATIC real near(real x) { return x > 20 ? (real)20 : x < -20 ? (real)-20 : x; }
    STATIC real h(real x) { return 2 * SPREAD * near(x) * (1 + (real)0.044715 * near(x) * near(x)); }
    STATIC real first(real x) { return 3 * h(x) - (real)3.1915382432114616 * near(x); }  // 4 SPREAD
};
ELEMENTWISE(gelu, Gelu, 2)

struct Silu : Gated<Silu> {
    STATIC real h(real x) { return x; }
    STATIC real first(real x) { return x; }
};
ELEMENTWISE(silu, Silu, 2)

struct Softplus : KeepsSlope<Softplus> {
    STATIC real of(real x) { return (x > 0 ? x : (real)0) + log1p(exp(-fabs(x))); }
    STATIC real slope(real x) { return Sigmoid::of(x); }
};
ELEMENTWISE(softplus, Softplus, 1)

struct Identity {
    STATIC real of(real x) { return x; }
    STATIC real slope(real) { return 1; }
    STATIC real slope_of(real, real) { return 1; }
};
ELEMENTWISE(identity, Identity, 0)

// The activations of fcnet.functional.activation that act element by element: the one that ACTIVATION says.

enum { RELU, LEAKY_RELU, ELU, SIGMOID, TANH, GELU, SILU };

__device__ __forceinline__ real sigmoid_of(real x) { return 1 / (1 + exp(-x)); }

// GELU in its tanh form is x sigmoid(h(x)), SiLU x sigmoid(x).
struct Gate { real x, h; };  // beyond 20 GELU's gate is 0 or 1, and a larger cube could overflow
__device__ __forceinline__ Gate gate_of(real x)
{
    if (ACTIVATION == SILU) return {x, x};
    const real spread = (real)0.7978845608028654, cubic = (real)0.044715;  // the first is sqrt(2 / pi)
    const real near = x > 20 ? (real)20 : x < -20 ? (real)-20 : x;
    return {near, 2 * spread * near * (1 + cubic * near * near)};
}

// NaN stays NaN.
__device__ __forceinline__ real activate(real x)
{
    if (ACTIVATION == LEAKY_RELU) return x > 0 ? x : (real)0.01 * x;
    if (ACTIVATION == ELU) return x > 0 ? x : expm1(x);
    if (ACTIVATION == SIGMOID) return sigmoid_of(x);
    if (ACTIVATION == TANH) return tanh(x);
    if (ACTIVATION == GELU || ACTIVATION == SILU) return x * sigmoid_of(gate_of(x).h);
    return x <= 0 ? (real)0 : x;
}

// The derivative of `activate` at x; 0 of ReLU at 0.
__device__ __forceinline__ real slope(real x)
{
    if (ACTIVATION == LEAKY_RELU) return x > 0 ? (real)1 : (real)0.01;
    if (ACTIVATION == ELU) return x > 0 ? (real)1 : exp(x);
    if (ACTIVATION == SIGMOID) return sigmoid_of(x) * (1 - sigmoid_of(x));
    if (ACTIVATION == TANH) return 1 - tanh(x) * tanh(x);
    if (ACTIVATION == GELU || ACTIVATION == SILU) {
        const Gate gate = gate_of(x);
        // x h'(x): that of GELU's h is 3 h - 4 sqrt(2 / pi) x.
        const real open = sigmoid_of(gate.h), steepness = ACTIVATION == SILU ? gate.x : 3 * gate.h - (real)3.1915382432114616 * gate.x;
        return open * (1 + (1 - open) * steepness);
    }
    return x > 0 ? (real)1 : (real)0;
}

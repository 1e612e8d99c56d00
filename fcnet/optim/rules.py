"""Update rules: each formula once, in place over flat arrays.

w, dw (P,) are parameters and their gradient, further arrays (P,) the rule's moments; dw is not changed. `work` is
scratch (B,) of the same dtype: the update is made B elements at a time, so that on a CPU a block stays in the cache
from one pass to the next. `learning_rate` and `step` (updates made before this one) may be numbers or arrays of one
element on the device: a recorded step reads them there.

Rules that square the gradient limit it first, element by element (`fcnet.backends.rules.gradient_limit`): the square
of 1e20 overflows in float32, and an infinite moment would hold its weight still for good, without a word. A gradient
that is not finite gives a weight that is not.

What decays is flushed to 0 below the smallest normal number of its dtype (`fcnet.backends.flush`): the moments of a
weight whose gradient has become 0 would stay denormal for good, and a CPU takes a hundred cycles for each of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fcnet.backends import Backend, accelerated, flush
from fcnet.backends.rules import MEAN_OF_SQUARES, SUM_OF_SQUARES, gradient_limit, roles

Array = Any


def _blocks(work: Array, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    size = work.size
    for start in range(0, arrays[0].size, size):
        block = [array[start : start + size] for array in arrays]
        yield (work[: block[0].size], *block)


def _limited_blocks(
    backend: Backend, work: Array, headroom: int, w: Array, dw: Array, *moments: Array
) -> Iterator[tuple[Array, ...]]:
    """Yield blocks with min(max(dw, -L), L) - (dw - dw) in place of dw: NaN where dw is not finite.

    Where nothing exceeds L that is dw itself; else half of the scratch holds it.
    """
    xp, limit = backend.xp, gradient_limit(dw.dtype, headroom)
    for block in _blocks(work, w, dw, *moments):
        if not backend.may_exceed(block[2], limit, work=block[0]):
            yield block
            continue
        half = max(1, block[0].size // 2)
        room = block[0][half:] if block[0].size > 1 else xp.empty((1,), dtype=w.dtype)
        for t, w_, dw_, *moments_ in _blocks(block[0][:half], *block[1:]):
            limited = room[: t.size]
            xp.maximum(dw_, -limit, out=limited)
            xp.minimum(limited, limit, out=limited)
            xp.subtract(limited, xp.subtract(dw_, dw_, out=t), out=limited)
            yield t, w_, limited, *moments_


def _scalar(backend: Backend, w: Array, value: Any) -> Array:
    """Return a number in the dtype of w, so that a float64 rate does not turn float32 arithmetic into float64."""
    return backend.xp.asarray(value, dtype=w.dtype)


@accelerated("w")
def sgd(backend: Backend, w: Array, dw: Array, learning_rate: float | Array, *, work: Array) -> Array:
    """Update by SGD: w -= η dw. Source: both courses; Robbins and Monro, 1951."""
    xp = backend.xp
    rate = _scalar(backend, w, learning_rate)
    for t, w_, dw_ in _blocks(work, w, dw):
        xp.multiply(dw_, rate, out=t)
        xp.subtract(w_, t, out=w_)  # w = w - η dw
    return w


@accelerated("w")
def momentum(
    backend: Backend,
    w: Array,
    dw: Array,
    velocity: Array,
    learning_rate: float | Array,
    *,
    momentum: float = 0.9,
    work: Array,
) -> Array:
    """Update with momentum: v = μ v - η dw; w += v. Source: Polyak, 1964; this form as in CS231n."""
    xp = backend.xp
    rate = _scalar(backend, w, learning_rate)
    for t, w_, dw_, v_ in _blocks(work, w, dw, velocity):
        xp.multiply(v_, momentum, out=v_)
        xp.multiply(dw_, rate, out=t)
        xp.subtract(v_, t, out=v_)  # v = μ v - η dw
        flush(backend, v_, work=t)
        xp.add(w_, v_, out=w_)  # w = w + v
    return w


@accelerated("w")
def nesterov(
    backend: Backend,
    w: Array,
    dw: Array,
    velocity: Array,
    learning_rate: float | Array,
    *,
    momentum: float = 0.9,
    work: Array,
) -> Array:
    """Update with Nesterov's momentum: v' = v; v = μ v - η dw; w += -μ v' + (1 + μ) v.

    w is where the gradient is taken, one momentum step ahead of Nesterov's own variable. Computed as
    w += μ v - η dw, with v already new, which is the same.

    Source: Nesterov, 1983; this form as in CS231n, after Bengio et al., "Advances in Optimizing Recurrent Networks",
    2012.
    """
    xp = backend.xp
    rate = _scalar(backend, w, learning_rate)
    for t, w_, dw_, v_ in _blocks(work, w, dw, velocity):
        xp.multiply(dw_, rate, out=t)
        xp.multiply(v_, momentum, out=v_)
        xp.subtract(v_, t, out=v_)  # v = μ v - η dw
        xp.subtract(w_, t, out=w_)
        flush(backend, v_, work=t)
        xp.multiply(v_, momentum, out=t)
        xp.add(w_, t, out=w_)  # w = w - η dw + μ v, v already new
    return w


@accelerated("w")
def adagrad(
    backend: Backend,
    w: Array,
    dw: Array,
    cache: Array,
    learning_rate: float | Array,
    *,
    epsilon: float = 1e-8,
    work: Array,
) -> Array:
    """Update by AdaGrad: c += dw²; w -= η dw / (sqrt(c) + ε).

    dw is limited to ±2^48 first (float64: ±2^496), so that c stays finite.

    Source: Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011; ε as in CS231n.
    """
    xp = backend.xp
    rate = _scalar(backend, w, learning_rate)
    for t, w_, dw_, c_ in _limited_blocks(backend, work, SUM_OF_SQUARES, w, dw, cache):
        xp.multiply(dw_, dw_, out=t)
        xp.add(c_, t, out=c_)  # c = c + dw²
        xp.sqrt(c_, out=t)
        xp.add(t, epsilon, out=t)
        xp.divide(dw_, t, out=t)
        xp.multiply(t, rate, out=t)
        xp.subtract(w_, t, out=w_)  # w = w - η dw / (sqrt(c) + ε)
    return w


@accelerated("w")
def rmsprop(
    backend: Backend,
    w: Array,
    dw: Array,
    cache: Array,
    learning_rate: float | Array,
    *,
    decay_rate: float = 0.99,
    epsilon: float = 1e-8,
    work: Array,
) -> Array:
    """Update by RMSProp: c = ρ c + (1 - ρ) dw²; w -= η dw / (sqrt(c) + ε).

    dw is limited to ±2^63 first (float64: ±2^511), so that c stays finite.

    Source: Tieleman and Hinton, 2012; ε as in CS231n.
    """
    xp = backend.xp
    rate = _scalar(backend, w, learning_rate)
    for t, w_, dw_, c_ in _limited_blocks(backend, work, MEAN_OF_SQUARES, w, dw, cache):
        xp.multiply(dw_, dw_, out=t)
        xp.multiply(t, 1 - decay_rate, out=t)
        xp.multiply(c_, decay_rate, out=c_)
        xp.add(c_, t, out=c_)  # c = ρ c + (1 - ρ) dw²
        flush(backend, c_, work=t)
        xp.sqrt(c_, out=t)
        xp.add(t, epsilon, out=t)
        xp.divide(dw_, t, out=t)
        xp.multiply(t, rate, out=t)
        xp.subtract(w_, t, out=w_)  # w = w - η dw / (sqrt(c) + ε)
    return w


@accelerated("w")
def adam(
    backend: Backend,
    w: Array,
    dw: Array,
    m: Array,
    v: Array,
    step: int | Array,
    learning_rate: float | Array,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    work: Array,
) -> Array:
    """Update by Adam: m = β₁ m + (1 - β₁) dw; v = β₂ v + (1 - β₂) dw²; w -= η m̂ / (sqrt(v̂) + ε).

    m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ), t = step + 1. Epsilon is added to the bias-corrected root (the paper's
    algorithm, CS231n, PyTorch), not to sqrt(v) (Keras, scikit-learn). Computed as
    w -= α m / (sqrt(v) + ε') with α = η sqrt(1 - β₂ᵗ) / (1 - β₁ᵗ) and ε' = ε sqrt(1 - β₂ᵗ), which is the same.

    dw is limited to ±2^63 first (float64: ±2^511), so that v stays finite.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.
    """
    xp = backend.xp
    t = xp.asarray(step + 1, dtype="float64")  # float32 would lose the digits of 1 - β₂ᵗ
    root = xp.sqrt(1 - beta2**t)
    alpha = _scalar(backend, w, learning_rate * root / (1 - beta1**t))
    epsilon_hat = _scalar(backend, w, epsilon * root)
    for tmp, w_, dw_, m_, v_ in _limited_blocks(backend, work, MEAN_OF_SQUARES, w, dw, m, v):
        xp.multiply(m_, beta1, out=m_)
        xp.multiply(dw_, 1 - beta1, out=tmp)
        xp.add(m_, tmp, out=m_)  # m = β₁ m + (1 - β₁) dw
        flush(backend, m_, work=tmp)
        xp.multiply(v_, beta2, out=v_)
        xp.multiply(dw_, dw_, out=tmp)
        xp.multiply(tmp, 1 - beta2, out=tmp)
        xp.add(v_, tmp, out=v_)  # v = β₂ v + (1 - β₂) dw²
        flush(backend, v_, work=tmp)
        xp.sqrt(v_, out=tmp)
        xp.add(tmp, epsilon_hat, out=tmp)
        xp.divide(m_, tmp, out=tmp)
        xp.multiply(tmp, alpha, out=tmp)
        xp.subtract(w_, tmp, out=w_)  # w = w - α m / (sqrt(v) + ε')
    return w


@accelerated("w")
def lion(
    backend: Backend,
    w: Array,
    dw: Array,
    m: Array,
    learning_rate: float | Array,
    *,
    beta1: float = 0.9,
    beta2: float = 0.99,
    work: Array,
) -> Array:
    """Update by Lion: w -= η sign(β₁ m + (1 - β₁) dw); m = β₂ m + (1 - β₂) dw. sign(0) = 0.

    Every weight moves by η, so rates are a third to a tenth of Adam's, and the decoupled decay λ is as many times
    stronger, for the same η λ. Decay comes before the step, as in AdamW: w -= η (sign(...) + λ w).

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, Algorithm 2 and section 5.
    """
    xp = backend.xp
    rate = _scalar(backend, w, learning_rate)
    for t, w_, dw_, m_ in _blocks(work, w, dw, m):
        xp.subtract(m_, dw_, out=t)  # β₁ m + (1 - β₁) dw = dw + β₁ (m - dw), which needs no second scratch
        xp.multiply(t, beta1, out=t)
        xp.add(t, dw_, out=t)
        xp.sign(t, out=t)
        xp.multiply(t, rate, out=t)
        xp.subtract(w_, t, out=w_)  # w = w - η sign(β₁ m + (1 - β₁) dw)
        xp.multiply(m_, beta2, out=m_)
        xp.multiply(dw_, 1 - beta2, out=t)
        xp.add(m_, t, out=m_)  # m = β₂ m + (1 - β₂) dw
        flush(backend, m_, work=t)
    return w


class Rule(NamedTuple):
    """Describe an update rule: its function, and the defaults that the function's signature does not say.

    learning_rate: the usual one. weight_decay: the usual strength of the decoupled decay that goes with it.
    """

    update: Callable[..., Any]
    learning_rate: float
    weight_decay: float = 0.0

    @property
    def moments(self) -> tuple[str, ...]:
        """Return the names of the arrays that it keeps."""
        return roles(self.update).moments

    @property
    def counts(self) -> bool:
        """Return whether it takes the number of updates made before."""
        return roles(self.update).counts

    @property
    def defaults(self) -> Mapping[str, float]:
        """Return its hyperparameters by name, the learning rate first."""
        return {"learning_rate": self.learning_rate, **roles(self.update).constants}


#: Update rules by name, `update_rule=` of a Solver.
RULES = {
    "sgd": Rule(sgd, learning_rate=1e-2),
    "momentum": Rule(momentum, learning_rate=1e-2),
    "nesterov": Rule(nesterov, learning_rate=1e-2),
    "adagrad": Rule(adagrad, learning_rate=1e-2),
    "rmsprop": Rule(rmsprop, learning_rate=1e-2),
    "adam": Rule(adam, learning_rate=1e-3),
    "adamw": Rule(adam, learning_rate=1e-3, weight_decay=1e-2),
    "lion": Rule(lion, learning_rate=1e-4, weight_decay=1e-1),
}

"""Optimizer rules and what limits a step; names and signatures of `fcnet.optim.rules` and `fcnet.optim.limits`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcnet.backends.cuda.launch import EACH, PARTS, THREADS, Launcher
from fcnet.backends.device import Kernel


class OptimKernels:
    """The kernels of optim.cu: one launch for the whole network."""

    def __init__(self, launcher: Launcher) -> None:
        self._on = launcher

    def table(self) -> dict[str, Kernel]:
        """Name of a reference function -> its kernel."""
        return {
            "sgd": Kernel(self.sgd, self._fits_rule(0)),
            "momentum": Kernel(self.momentum, self._fits_rule(1)),
            "nesterov": Kernel(self.nesterov, self._fits_rule(1)),
            "adagrad": Kernel(self.adagrad, self._fits_rule(1)),
            "rmsprop": Kernel(self.rmsprop, self._fits_rule(1)),
            "adam": Kernel(self.adam, self._fits_rule(2)),
            "decay_weights": Kernel(self.decay_weights, self._fits_decay),
            "clip_by_value": Kernel(self.clip_by_value, self._fits_clip),
            "clip_by_norm": Kernel(self.clip_by_norm, self._fits_norm),
        }

    def sgd(self, w, dw, learning_rate, *, work):
        self._on.each("sgd", w, w.size, w, dw, np.int64(w.size), learning_rate)
        return w

    def momentum(self, w, dw, velocity, learning_rate, *, momentum=0.9, work):
        self._on.each("momentum", w, w.size, w, dw, velocity, np.int64(w.size), learning_rate, w.dtype.type(momentum))
        return w

    def nesterov(self, w, dw, velocity, learning_rate, *, momentum=0.9, work):
        self._on.each("nesterov", w, w.size, w, dw, velocity, np.int64(w.size), learning_rate, w.dtype.type(momentum))
        return w

    def adagrad(self, w, dw, cache, learning_rate, *, epsilon=1e-8, work):
        self._on.each("adagrad", w, w.size, w, dw, cache, np.int64(w.size), learning_rate, w.dtype.type(epsilon))
        return w

    def rmsprop(self, w, dw, cache, learning_rate, *, decay_rate=0.99, epsilon=1e-8, work):
        constants = (w.dtype.type(c) for c in (decay_rate, 1 - decay_rate, epsilon))
        self._on.each("rmsprop", w, w.size, w, dw, cache, np.int64(w.size), learning_rate, *constants)
        return w

    def adam(self, w, dw, m, v, step, learning_rate, *, beta1=0.9, beta2=0.999, epsilon=1e-8, work):
        constants = np.float64(beta1), np.float64(beta2), np.float64(epsilon)
        self._on.each("adam", w, w.size, w, dw, m, v, np.int64(w.size), step, learning_rate, *constants, each=EACH)
        return w

    def decay_weights(self, w, learning_rate, weight_decay, *, work):
        self._on.each("decay_weights", w, w.size, w, np.int64(w.size), learning_rate, np.float64(weight_decay))
        return w

    def clip_by_value(self, dw, limit):
        self._on.each("clip_by_value", dw, dw.size, dw, np.int64(dw.size), dw.dtype.type(limit))
        return dw

    def clip_by_norm(self, dw, limit, *, work=None):
        parts, size = self._on.cupy.empty(PARTS, np.float64), np.int64(dw.size)
        self._on.launch("norm_parts", dw.dtype.char, (PARTS,), (THREADS,), parts, dw, size)
        self._on.each("clip_by_norm", dw, dw.size, dw, size, parts, np.int32(PARTS), dw.dtype.type(limit))
        return dw

    def _fits_rule(self, moments: int) -> Callable[..., bool]:
        def fits(w, *arguments, **_):
            numbers = arguments[1 + moments :]  # the step, if the rule counts, and the rate: read on the device
            on_device = all(
                isinstance(n, self._on.cupy.ndarray) and n.size == 1 and n.dtype.char in "ld" for n in numbers
            )
            others = arguments[: 1 + moments]
            return w.ndim == 1 and on_device and self._on.plain(w, *others) and all(a.shape == w.shape for a in others)

        return fits

    def _fits_decay(self, w, learning_rate, weight_decay, *, work):
        return self._fits_rule(0)(w, w, learning_rate)

    def _fits_clip(self, dw, limit):
        return self._on.plain(dw)

    def _fits_norm(self, dw, limit, *, work=None):
        """In float32, whose squares a double holds."""
        return self._on.plain(dw) and dw.dtype == np.float32

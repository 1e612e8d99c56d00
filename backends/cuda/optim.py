"""The CUDA kernels of update rules, clipping and decay, as `fcnet.optim.rules` and `fcnet.optim.limits` define them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcnet.backends.cuda.launch import EACH, THREADS, Launcher
from fcnet.backends.cuda.sources import RULES
from fcnet.backends.device import Kernel
from fcnet.backends.rules import RuleKernel, roles_of


class OptimKernels:
    """Launch the kernels of rules.cu and optim.cu: one launch updates the whole network."""

    def __init__(self, launcher: Launcher) -> None:
        self._on = launcher

    def table(self) -> dict[str, Kernel]:
        """Return the kernels by the name of the reference function."""
        return {
            **{name: Kernel(RuleKernel(name, self.update), self._fits_rule(name)) for name in RULES},
            "decay_weights": Kernel(self.decay_weights, self._fits_decay),
            "clip_by_value": Kernel(self.clip_by_value, self._fits_clip),
            "clip_by_norm": Kernel(self.clip_by_norm, self._fits_norm),
        }

    def update(self, name, w, dw, moments, step, rate, constants, rounded=None):
        """Apply a rule as `RuleKernel` asks; `rounded`, like w, gets the new weights in bfloat16."""
        m, v = (*moments, None, None)[:2]
        numbers = [np.float64(value) for value in (*constants, 0, 0, 0)[:3]]
        self._on.each(name, w, w.size, w, dw, m, v, rounded, np.int64(w.size), step, rate, *numbers, each=EACH)

    def decay_weights(self, w, learning_rate, weight_decay, *, work):
        self._on.each("decay_weights", w, w.size, w, np.int64(w.size), learning_rate, np.float64(weight_decay))
        return w

    def clip_by_value(self, dw, limit):
        self._on.each("clip_by_value", dw, dw.size, dw, np.int64(dw.size), dw.dtype.type(limit))
        return dw

    def clip_by_norm(self, dw, limit, *, work=None):
        parts, size = self._on.parts(dw.size), np.int64(dw.size)
        self._on.launch("norm_parts", dw.dtype.char, parts.shape, (THREADS,), parts, dw, size)
        self._on.each("clip_by_norm", dw, dw.size, dw, size, parts, np.int32(parts.size), dw.dtype.type(limit))
        return dw

    def _fits_rule(self, name: str) -> Callable[..., bool]:
        def fits(w, *arguments, **_):
            arrays = 1 + len(roles_of(name).moments)
            return self._fits(w, arguments[:arrays], arguments[arrays:])

        return fits

    def _fits(self, w, others, numbers):
        """Return whether a kernel serves these arrays; `numbers`, the step and the rate, must lie on the device."""
        on_device = all(isinstance(n, self._on.cupy.ndarray) and n.size == 1 and n.dtype.char in "ld" for n in numbers)
        return w.ndim == 1 and on_device and self._on.floats(w, *others) and all(a.shape == w.shape for a in others)

    def _fits_decay(self, w, learning_rate, weight_decay, *, work):
        return self._fits(w, [], [learning_rate])

    def _fits_clip(self, dw, limit):
        return self._on.floats(dw)

    def _fits_norm(self, dw, limit, *, work=None):
        """Return whether a kernel serves this gradient: float32, whose squares do not overflow a double."""
        return self._on.floats(dw) and dw.dtype == np.float32

"""Layers: parameter names and hyperparameters, tied to the functions of `fcnet.functional`. No formula, no cache.

A layer makes its calls through `run` (`fcnet.program`), so the same lines serve a single call and a recorded step.
Shapes: N batch, D features in, M features out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backends import Array, MaskStream
from fcnet import functional as F
from fcnet.params import ParamBuffer
from fcnet.program import Run


@dataclass(frozen=True)
class Output:
    """The last layer: affine, from D features to C scores."""

    index: int

    def shapes(self, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters."""
        return {f"W{self.index}": (width_in, width_out), f"b{self.index}": (width_out,)}

    def forward(self, run: Run, params: ParamBuffer, x: Array) -> tuple[Array, Any]:
        """Scores (N, C) and a cache for `backward`."""
        return run(F.affine_forward, x, params[f"W{self.index}"], params[f"b{self.index}"])

    def backward(self, run: Run, dout: Array, cache: Any, grads: ParamBuffer, need_dx: bool) -> Array | None:
        """Fill this layer's gradients and return dx (N, D), or None unless it is needed."""
        dx, _, _ = run(
            F.affine_backward,
            dout,
            cache,
            need_dx=need_dx,
            dx=run.scratch(self.index % 2, cache[0]) if need_dx else None,
            dw=grads[f"W{self.index}"],
            db=grads[f"b{self.index}"],
        )
        return dx


@dataclass(frozen=True)
class Hidden:
    """A hidden layer: affine - [batch or layer norm] - activation - [dropout]."""

    index: int
    activation: str
    normalization: str | None
    keep_ratio: float

    def shapes(self, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters."""
        shapes: dict[str, tuple[int, ...]] = Output(self.index).shapes(width_in, width_out)
        if self.normalization:
            shapes |= {f"gamma{self.index}": (width_out,), f"beta{self.index}": (width_out,)}
        return shapes

    def state_shapes(self, width_out: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what is kept but not trained: batch norm's running statistics."""
        if self.normalization != "batchnorm":
            return {}
        return {f"running_mean{self.index}": (width_out,), f"running_var{self.index}": (width_out,)}

    def forward(
        self, run: Run, params: ParamBuffer, state: ParamBuffer, x: Array, rng: MaskStream | None
    ) -> tuple[Array, Any]:
        """Training: out (N, M) and a cache for `backward`; batch norm updates its running statistics."""
        i = self.index
        z = run(F.matmul, x, params[f"W{i}"])
        rng = rng if self.keep_ratio < 1 else None
        how = (self.activation, self.keep_ratio, rng)
        if self.normalization is None:
            out, cache = run(F.bias_activation_dropout_forward, z, params[f"b{i}"], *how, hidden=z)
            return out, (x, params[f"W{i}"], cache)
        weights = params[f"b{i}"], params[f"gamma{i}"], params[f"beta{i}"]
        if self.normalization == "batchnorm":
            out, cache = run(
                F.batchnorm_activation_dropout_forward,
                z,
                *weights,
                *how,
                running_mean=state[f"running_mean{i}"],
                running_var=state[f"running_var{i}"],
                x_hat=z,
            )
        else:
            out, cache = run(F.layernorm_activation_dropout_forward, z, *weights, *how, x_hat=z)
        return out, (x, params[f"W{i}"], cache)

    def evaluate(self, run: Run, params: ParamBuffer, state: ParamBuffer, x: Array) -> Array:
        """Evaluating: out (N, M), without dropout, batch norm by its running statistics."""
        i = self.index
        z, _ = run(F.affine_forward, x, params[f"W{i}"], params[f"b{i}"])
        if self.normalization == "batchnorm":
            running = state[f"running_mean{i}"], state[f"running_var{i}"]
            z = run(F.batchnorm_inference, z, params[f"gamma{i}"], params[f"beta{i}"], *running, out=z)
        elif self.normalization == "layernorm":
            z, _ = run(F.layernorm_forward, z, params[f"gamma{i}"], params[f"beta{i}"])
        return run(F.ACTIVATIONS[self.activation].forward, z, out=z)[0]

    def backward(self, run: Run, dout: Array, cache: Any, grads: ParamBuffer, need_dx: bool) -> Array | None:
        """Fill this layer's gradients and return dx (N, D), or None unless it is needed. dout is overwritten."""
        i = self.index
        x, w, unit_cache = cache
        if self.normalization is None:
            dz, _ = run(
                F.bias_activation_dropout_backward,
                dout,
                unit_cache,
                dz=run.scratch(2, dout),
                db=grads[f"b{i}"],
            )
        else:
            backward = {
                "batchnorm": F.batchnorm_activation_dropout_backward,
                "layernorm": F.layernorm_activation_dropout_backward,
            }[self.normalization]
            dz, *_ = run(
                backward,
                dout,
                unit_cache,
                dz=dout,
                db=grads[f"b{i}"],
                dgamma=grads[f"gamma{i}"],
                dbeta=grads[f"beta{i}"],
                work=run.scratch(2, dout),
            )
        dx, _ = run(
            F.matmul_backward,
            dz,
            x,
            w,
            need_dx=need_dx,
            # Two buffers in turn: the layer above wrote into the other one, which dz may still occupy.
            dx=run.scratch(i % 2, x) if need_dx else None,
            dw=grads[f"W{i}"],
        )
        return dx

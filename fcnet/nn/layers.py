"""Layers: parameter names and hyperparameters, and which functions of `fcnet.functional` they call. No formulas here.

A layer makes its calls through `run` (`fcnet.backends.step`), so the same code makes a step or records it.
Shapes: N batch, D features in, M features out.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import fcnet.functional as F
from fcnet.backends import Array, MaskStream
from fcnet.backends.step import Run
from fcnet.nn.params import ParamBuffer
from fcnet.validation import one_of


@dataclass(frozen=True)
class Output:
    """Compute the last layer: affine, from D features to C scores."""

    index: int
    precision: str | None = None  # of the products; None: that of the arrays

    @property
    def products(self) -> dict[str, str]:
        """Return further keyword arguments for the functions that multiply matrices."""
        return {} if self.precision is None else {"precision": self.precision}

    def shapes(self, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the parameters."""
        return {f"W{self.index}": (width_in, width_out), f"b{self.index}": (width_out,)}

    def forward(self, run: Run, params: ParamBuffer, x: Array) -> tuple[Array, Any]:
        """Return scores (N, C) and a cache for `backward`."""
        return run(F.affine_forward, x, params[f"W{self.index}"], params[f"b{self.index}"], **self.products)

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
            **self.products,
        )
        return dx


@dataclass(frozen=True)
class Hidden:
    """Compute a hidden layer: affine - [batch or layer norm] - activation - [dropout].

    With maxout of k pieces, the affine part and the normalisation have k M columns.
    """

    index: int
    activation: str
    normalization: str | None
    keep_ratio: float
    dropout: str = "inverted"  # or "plain"
    precision: str | None = None  # of the products; None: that of the arrays

    @property
    def products(self) -> dict[str, str]:
        """Return further keyword arguments for the functions that multiply matrices."""
        return Output(self.index, self.precision).products

    @property
    def kind(self) -> F.Activation:
        """Return the activation's functions."""
        return F.activation_named("activation", self.activation)

    def shapes(self, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the parameters."""
        width_out *= self.kind.pieces
        shapes: dict[str, tuple[int, ...]] = Output(self.index).shapes(width_in, width_out)
        if self.normalization:
            shapes |= {f"gamma{self.index}": (width_out,), f"beta{self.index}": (width_out,)}
        return shapes

    def state_shapes(self, width_out: int) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of what is kept but not trained: batch norm's running statistics."""
        if self.normalization != "batchnorm":
            return {}
        width_out *= self.kind.pieces
        return {f"running_mean{self.index}": (width_out,), f"running_var{self.index}": (width_out,)}

    def forward(
        self, run: Run, params: ParamBuffer, state: ParamBuffer, x: Array, rng: MaskStream | None
    ) -> tuple[Array, Any]:
        """Compute out (N, M) in training, and a cache for `backward`; batch norm updates its running statistics."""
        i = self.index
        z = run(F.matmul, x, params[f"W{i}"], **self.products)
        rng = rng if self.keep_ratio < 1 else None
        is_plain = self.dropout == "plain"
        how = (self.activation, 1.0, None) if is_plain else (self.activation, self.keep_ratio, rng)
        names = ("b",) if self.normalization is None else ("b", "gamma", "beta")
        vectors = [params[f"{name}{i}"] for name in names]
        if self.normalization is None:
            out, cache = run(F.bias_activation_dropout_forward, z, *vectors, *how, hidden=z)
        elif self.normalization == "batchnorm":
            out, cache = run(
                F.batchnorm_activation_dropout_forward,
                z,
                *vectors,
                *how,
                running_mean=state[f"running_mean{i}"],
                running_var=state[f"running_var{i}"],
                x_hat=z,
            )
        else:
            out, cache = run(F.layernorm_activation_dropout_forward, z, *vectors, *how, x_hat=z)
        mask = None
        if is_plain and rng is not None:
            out, mask = run(F.plain_dropout_forward, out, self.keep_ratio, rng)
        return out, (x, params[f"W{i}"], z, cache, mask)

    def evaluate(
        self, run: Run, params: ParamBuffer, state: ParamBuffer, x: Array, rng: MaskStream | None = None
    ) -> Array:
        """Evaluate: out (N, M), batch norm by its running statistics, no unit dropped unless `rng` is given."""
        i = self.index
        if self.normalization == "batchnorm":
            z, _ = run(F.affine_forward, x, params[f"W{i}"], params[f"b{i}"], **self.products)
            running = state[f"running_mean{i}"], state[f"running_var{i}"]
            z = run(F.batchnorm_inference, z, params[f"gamma{i}"], params[f"beta{i}"], *running, out=z)
            out, _ = run(F.activate, z, self.activation, out=z if self.kind.pieces == 1 else None)
        else:
            z = run(F.matmul, x, params[f"W{i}"], **self.products)
            if self.normalization is None:
                out, _ = run(F.bias_activation_dropout_forward, z, params[f"b{i}"], self.activation, hidden=z)
            else:
                vectors = [params[f"{name}{i}"] for name in ("b", "gamma", "beta")]
                out, _ = run(F.layernorm_activation_dropout_forward, z, *vectors, self.activation, x_hat=z)
        if rng is not None and self.keep_ratio < 1:
            draw = F.plain_dropout_mask if self.dropout == "plain" else F.dropout_mask
            mask = run(draw, rng, self.keep_ratio, out.shape, out.dtype)
            out, _ = run(F.dropout_forward, out, mask, out=out)
        elif self.dropout == "plain":
            out = run(F.plain_dropout_inference, out, self.keep_ratio, out=out)
        return out

    def backward(self, run: Run, dout: Array, cache: Any, grads: ParamBuffer, need_dx: bool) -> Array | None:
        """Fill this layer's gradients and return dx (N, D), or None unless it is needed. dout is overwritten."""
        i = self.index
        x, w, z, fused_cache, mask = cache
        if mask is not None:
            dout = run(F.dropout_backward, dout, mask, dx=dout)
        if self.normalization is None:
            dz, _ = run(
                F.bias_activation_dropout_backward,
                dout,
                fused_cache,
                dz=run.scratch(2, z),
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
                fused_cache,
                dz=dout if self.kind.pieces == 1 else run.scratch(3, z),
                db=grads[f"b{i}"],
                dgamma=grads[f"gamma{i}"],
                dbeta=grads[f"beta{i}"],
                work=run.scratch(2, z),
            )
        dx, _ = run(
            F.matmul_backward,
            dz,
            x,
            w,
            need_dx=need_dx,
            # Two buffers in turn: the layer above has written to the other one, where dz may still lie.
            dx=run.scratch(i % 2, x) if need_dx else None,
            dw=grads[f"W{i}"],
            **self.products,
        )
        return dx


def hidden_activations(activation: Any, maxout_pieces: Any, layers: int) -> list[str]:
    """Return the name of each hidden layer's activation, "maxout:3" for maxout of 3 pieces.

    Raises:
        ValueError, TypeError: an unknown name, a list of another length, pieces without maxout or fewer than 2.
    """
    if not isinstance(activation, str | list | tuple):
        raise TypeError(f"activation: expected a name or a list of names, got {activation!r}")
    names = [activation] * layers if isinstance(activation, str) else list(activation)
    for name in [activation] if isinstance(activation, str) else names:
        one_of("activation", name, F.ACTIVATIONS)
    if len(names) != layers:
        raise ValueError(
            f"activation and hidden_dims: expected one activation for all hidden layers or one for each of the "
            f"{layers}, got {len(names)} ({', '.join(names)})"
        )
    if maxout_pieces is None:
        return names
    if activation != "maxout" and "maxout" not in names:
        raise ValueError(
            f"maxout_pieces and activation: expected activation 'maxout' with maxout_pieces={maxout_pieces!r}, "
            f"got {activation!r}; leave maxout_pieces out"
        )
    if isinstance(maxout_pieces, bool) or not isinstance(maxout_pieces, numbers.Integral):
        raise TypeError(f"maxout_pieces: expected an integer, got {maxout_pieces!r}")
    if maxout_pieces < 2:
        raise ValueError(
            f"maxout_pieces and activation: expected 2 or more pieces with 'maxout', got {maxout_pieces}; "
            "one piece is a layer without activation"
        )
    return [f"maxout:{maxout_pieces}" if name == "maxout" else name for name in names]

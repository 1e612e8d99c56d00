"""JAX: the whole step, gather included, in one jit with donated state. On a GPU: docs/gpu.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.tuning import Stepper, TunedPeer
from benchmarks.workloads import (
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
    NORM_EPS,
    NORM_MOMENTUM,
    SEED,
    Data,
    Workload,
    permutation,
)


def hand_written() -> tuple[Callable, Callable]:
    """Return Adam as (init, update), like optax's but applied at once."""

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)

    def update(params: Any, grads: Any, moments: Any, step: Any) -> Any:
        t = (step + 1).astype(jnp.float32)
        rate, root = LEARNING_RATE / (1 - BETA1**t), jax.lax.rsqrt(1 - BETA2**t)
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, moments[0], grads)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, moments[1], grads)
        params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) * root + EPSILON), params, m, v)
        return params, (m, v)

    return init, update


def from_optax() -> tuple[Callable, Callable]:
    """Return the same by optax."""
    import optax

    adam = optax.adam(LEARNING_RATE, BETA1, BETA2, EPSILON)

    def update(params: Any, grads: Any, moments: Any, step: Any) -> Any:
        changes, moments = adam.update(grads, moments, params)
        return optax.apply_updates(params, changes), moments

    return adam.init, update


class Jitted(Stepper):
    """Compute state, loss = step(state, X, y, order); the cursor is part of the state."""

    def __init__(
        self,
        workload: Workload,
        data: Data,
        weights: Mapping[str, np.ndarray],
        device: str,
        adam: Callable[[], tuple[Callable, Callable]],
    ) -> None:
        self.workload, self.weights = workload, weights
        self.per_epoch = workload.count // workload.batch
        self.init, self.update = adam()
        kind, _, index = device.partition(":")
        self.device = jax.devices("cpu" if kind == "cpu" else "gpu")[int(index or 0)]
        self.X = self._put(data.X)
        self.y = self._put(data.y if workload.numeric else data.y.astype(np.int32))
        self.jitted = jax.jit(self._step, donate_argnums=0)
        self.reset()

    def _put(self, value: np.ndarray | np.int32) -> jax.Array:
        return jax.device_put(value, self.device)

    def reset(self) -> None:
        params = {name: self._put(value.copy()) for name, value in self.weights.items()}
        running = [self._put(np.zeros((2, width), np.float32)) for width in self.workload.hidden if self.workload.norm]
        with jax.default_device(self.device):
            moments = self.init(params)
        self.state = params, running, moments, self._put(np.int32(0))
        self.steps = 0
        self.order = self._put(permutation(self.workload, 0).astype(np.int32))

    def _loss(self, params: Any, running: Any, x: Any, y: Any, step: Any) -> Any:
        keep, moved = self.workload.keep, []
        for i in range(1, self.workload.layers):
            x = self._product(x, params[f"W{i}"]) + params[f"b{i}"]
            if self.workload.norm:
                mean = x.mean(0)
                centred = x - mean
                var = (centred * centred).mean(0)
                x = centred * jax.lax.rsqrt(var + NORM_EPS) * params[f"gamma{i}"] + params[f"beta{i}"]
                moved.append(NORM_MOMENTUM * running[i - 1] + (1 - NORM_MOMENTUM) * jnp.stack([mean, var]))
            x = jnp.tanh(x) if self.workload.activation == "tanh" else jax.nn.relu(x)
            if keep < 1:
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), step), i)
                kept = jax.random.bits(key, x.shape, jnp.uint16) < round(keep * 65536)  # half the bits of `bernoulli`
                x = jnp.where(kept, x / keep, 0)
        last = self.workload.layers
        scores = self._product(x, params[f"W{last}"]) + params[f"b{last}"]
        if self.workload.numeric:
            return ((scores - y) ** 2).mean(), moved
        log_probs = jax.nn.log_softmax(scores)
        return -jnp.take_along_axis(log_probs, y[:, None], axis=1).mean(), moved

    def _product(self, x: Any, w: Any) -> Any:
        if self.workload.precision != "bf16":
            return x @ w
        # The product's type is bfloat16 too, as under PyTorch's autocast: asked for float32, the two products of its
        # gradient would be float32 ones. The sums are float32 either way.
        return (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32)

    def _step(self, state: Any, X: Any, y: Any, order: Any) -> Any:
        params, running, moments, step = state
        batch = self.workload.batch
        start = step % self.per_epoch * batch
        rows = jax.lax.dynamic_slice(order, (start,), (batch,))
        gradient = jax.value_and_grad(self._loss, has_aux=True)
        inputs, labels = jnp.take(X, rows, axis=0, mode="clip"), jnp.take(y, rows, axis=0, mode="clip")
        (loss, running), grads = gradient(params, running, inputs, labels, step)
        params, moments = self.update(params, grads, moments, step)
        return (params, running, moments, step + 1), loss

    def _shuffle(self) -> None:
        """Bring the order of the next epoch, if the last one is over."""
        if self.steps and self.steps % self.per_epoch == 0:
            self.order = self._put(permutation(self.workload, self.steps // self.per_epoch).astype(np.int32))

    def __call__(self) -> jax.Array:
        self._shuffle()
        self.steps += 1
        self.state, loss = self.jitted(self.state, self.X, self.y, self.order)
        return loss

    def losses(self, count: int) -> list[float]:
        """Return the losses of the next steps."""
        return [float(loss) for loss in [self() for _ in range(count)]]

    def synchronize(self) -> None:
        jax.block_until_ready(self.state)


class Scanned(Jitted):
    """Make a whole epoch in one call; the steps of a part of one singly."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.scanned = jax.jit(self._epoch, donate_argnums=0)

    def _epoch(self, state: Any, X: Any, y: Any, order: Any) -> Any:
        return jax.lax.scan(lambda state, _: self._step(state, X, y, order), state, length=self.per_epoch)

    def reset(self) -> None:
        super().reset()
        self._ahead: list[float] = []  # losses of steps made and not yet asked for

    def _go(self, most: int) -> tuple[int, Any]:
        """Make up to `most` steps; return how many, and their losses."""
        if most < self.per_epoch or self.steps % self.per_epoch:
            return 1, self()
        self._shuffle()
        self.state, losses = self.scanned(self.state, self.X, self.y, self.order)
        self.steps += self.per_epoch
        return self.per_epoch, losses

    def many(self, count: int) -> None:
        while count:
            count -= self._go(count)[0]

    def losses(self, count: int) -> list[float]:
        while len(self._ahead) < count:
            self._ahead += np.atleast_1d(self._go(self.per_epoch)[1]).tolist()
        asked, self._ahead = self._ahead[:count], self._ahead[count:]
        return asked


class Jax(TunedPeer):
    """Train by Adam from optax or by hand, the faster. Steps are queued: the next begins before the last is read."""

    strategies: Mapping[str, Callable[..., Jitted]] = {
        "Adam by hand": partial(Jitted, adam=hand_written),
        "optax": partial(Jitted, adam=from_optax),
    }

    def make(self, workload: Workload, data: Data, weights: Mapping[str, np.ndarray], device: str) -> None:
        # "highest" is float32, also where TF32 is the default
        precision = {"tf32": "tensorfloat32", "bf16": "default"}.get(workload.precision, "highest")
        jax.config.update("jax_default_matmul_precision", precision)
        strategies = self.strategies.items()
        self.build(workload, {name: partial(way, workload, data, weights, device) for name, way in strategies})


class Scan(Jax):
    """Make an epoch a call, for a device on which a step may be shorter than a call."""

    strategies: Mapping[str, Callable[..., Jitted]] = {
        "Adam by hand, an epoch a call": partial(Scanned, adam=hand_written)
    }


class Synchronous(Jax):
    """Wait for each step: what a loop costs that looks at every loss."""

    def settle(self) -> None:
        super().settle()
        self.about.pop("tried", None)

    def step(self) -> None:
        jax.block_until_ready(self.stepper())

    def many(self, count: int) -> None:
        for _ in range(count):
            self.step()

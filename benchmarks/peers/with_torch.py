"""PyTorch: eager, compiled, and (CUDA) as one graph. On a GPU: docs/gpu.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers.base import threads
from benchmarks.peers.tuning import Stepper, TunedPeer
from benchmarks.workloads import (
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
    NORM_EPS,
    NORM_MOMENTUM,
    Data,
    Workload,
    permutation,
)

MOST_CAPTURED = 20  # steps in one graph


class Rows:
    """Hold the data on the device, and the row numbers of the next batch in fcnet's order."""

    def __init__(self, workload: Workload, data: Data, device: str) -> None:
        self.workload = workload
        self.X, self.y = torch.from_numpy(data.X).to(device), torch.from_numpy(data.y).to(device)
        self.order = torch.empty(workload.count, dtype=torch.int64, device=device)
        self.reset()

    def precision(self) -> torch.autocast:
        """Return where products are made: with bf16 as PyTorch's users have it, by autocast over float32 weights."""
        kind = self.X.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.workload.precision == "bf16", cache_enabled=False)

    def reset(self) -> None:
        self.epoch = self.position = 0
        self._shuffle()

    def _shuffle(self) -> None:
        self.order.copy_(torch.from_numpy(permutation(self.workload, self.epoch)))

    def next(self, batches: int = 1) -> torch.Tensor:
        """Return a view of the epoch's order: the next batch, or so many of this epoch."""
        if self.position == self.workload.count:
            self.epoch, self.position = self.epoch + 1, 0
            self._shuffle()
        start, self.position = self.position, self.position + batches * self.workload.batch
        return self.order[start : self.position]


def mean_loss(workload: Workload, scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of a batch, in float32."""
    return (F.mse_loss if workload.numeric else F.cross_entropy)(scores.float(), y)


def build(workload: Workload) -> nn.Sequential:
    """Return the net as a PyTorch user writes it."""
    layers: list[nn.Module] = []
    widths = workload.widths
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after))
        if workload.norm:
            layers.append(nn.BatchNorm1d(after, eps=NORM_EPS, momentum=1 - NORM_MOMENTUM))
        layers.append(nn.Tanh() if workload.activation == "tanh" else nn.ReLU())
        if workload.keep < 1:
            layers.append(nn.Dropout(1 - workload.keep))
    return nn.Sequential(*layers, nn.Linear(*widths[-2:]))


class StepVariant(Stepper):
    """Share what all ways to write a step need."""

    device: str

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def losses(self, count: int) -> list[float]:
        """Return the losses of the next steps."""
        return [float(loss) for loss in [self().clone() for _ in range(count)]]  # a graph's is always the same one


class Modules(StepVariant):
    """Use nn.Sequential, cross_entropy, backward, torch.optim.Adam; the batch is gathered into one buffer."""

    def __init__(
        self,
        workload: Workload,
        data: Data,
        weights: Mapping[str, np.ndarray],
        device: str,
        compiled: dict[str, Any] | None = None,
        **adam: Any,
    ) -> None:
        self.device, self.weights = device, weights
        self.rows = Rows(workload, data, device)
        self.net = build(workload).to(device)
        self.adam = torch.optim.Adam(self.net.parameters(), LEARNING_RATE, (BETA1, BETA2), EPSILON, **adam)
        self.x = torch.empty((workload.batch, workload.inputs), device=device)
        self.y = torch.empty((workload.batch, *data.y.shape[1:]), dtype=self.rows.y.dtype, device=device)
        self.loss: Callable[..., torch.Tensor] = self._loss
        if compiled is not None:
            self.loss = torch.compile(self._loss, **compiled)
        self.reset()

    def reset(self) -> None:
        self.rows.reset()
        linear = [layer for layer in self.net if isinstance(layer, nn.Linear)]
        norms = [layer for layer in self.net if isinstance(layer, nn.BatchNorm1d)]
        with torch.no_grad():
            for i, layer in enumerate(linear, 1):
                layer.weight.copy_(torch.from_numpy(self.weights[f"W{i}"].T))
                layer.bias.copy_(torch.from_numpy(self.weights[f"b{i}"]))
            for i, layer in enumerate(norms, 1):
                layer.weight.copy_(torch.from_numpy(self.weights[f"gamma{i}"]))
                layer.bias.copy_(torch.from_numpy(self.weights[f"beta{i}"]))
                layer.reset_running_stats()
            for state in self.adam.state.values():
                for value in state.values():
                    value.zero_()

    def _loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with self.rows.precision():
            scores = self.net(x)
        return mean_loss(self.rows.workload, scores, y)

    def __call__(self) -> torch.Tensor:
        return self.train_on(self.rows.next())

    def train_on(self, rows: torch.Tensor) -> torch.Tensor:
        """Make one update from these rows of the data."""
        torch.index_select(self.rows.X, 0, rows, out=self.x)
        torch.index_select(self.rows.y, 0, rows, out=self.y)
        self.adam.zero_grad(set_to_none=True)
        loss = self.loss(self.x, self.y)
        loss.backward()
        self.adam.step()
        return loss.detach()


class WholeStep(StepVariant):
    """Gather, forward, gradient (torch.func) and Adam as one compiled function over plain tensors."""

    def __init__(
        self, workload: Workload, data: Data, weights: Mapping[str, np.ndarray], device: str, **compiled: Any
    ) -> None:
        self.workload, self.device, self.weights = workload, device, weights
        self.rows = Rows(workload, data, device)
        empty = {name: torch.empty(value.shape, device=device) for name, value in weights.items()}
        self.params, self.m, self.v = ({n: torch.zeros_like(t) for n, t in empty.items()} for _ in range(3))
        self.running = [torch.zeros((2, width), device=device) for width in workload.hidden if workload.norm]
        self.t = torch.zeros((), device=device)
        if device != "cpu":  # what is changed in place must be known to stay where it is, or no graph is made
            held = (*self.params.values(), *self.m.values(), *self.v.values(), *self.running, self.t)
            for tensor in (*held, self.rows.X, self.rows.y):
                torch._dynamo.mark_static_address(tensor)
        self.compiled = torch.compile(self._step, **compiled)
        self.reset()

    def reset(self) -> None:
        self.rows.reset()
        for name, value in self.weights.items():
            self.params[name].copy_(torch.from_numpy(value))
        for tensor in (*self.m.values(), *self.v.values(), *self.running, self.t):
            tensor.zero_()

    def _loss(
        self, params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        with self.rows.precision():
            scores, moments = self._scores(params, x)
        return mean_loss(self.workload, scores, y), moments

    def _scores(
        self, params: dict[str, torch.Tensor], x: torch.Tensor
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        moments = []
        for i in range(1, self.workload.layers):
            x = torch.addmm(params[f"b{i}"], x, params[f"W{i}"])
            if self.workload.norm:
                mean = x.mean(0)
                centred = x - mean
                var = (centred * centred).mean(0)
                x = centred * torch.rsqrt(var + NORM_EPS) * params[f"gamma{i}"] + params[f"beta{i}"]
                moments.append((mean, var))
            x = torch.tanh(x) if self.workload.activation == "tanh" else F.relu(x)
            if self.workload.keep < 1:
                x = F.dropout(x, 1 - self.workload.keep)
        last = self.workload.layers
        return torch.addmm(params[f"b{last}"], x, params[f"W{last}"]), moments

    def _step(self, rows: torch.Tensor) -> torch.Tensor:
        gradient = torch.func.grad_and_value(self._loss, has_aux=True)
        grads, (loss, moments) = gradient(self.params, self.rows.X[rows], self.rows.y[rows])
        for running, (mean, var) in zip(self.running, moments, strict=True):
            running[0].lerp_(mean, 1 - NORM_MOMENTUM)
            running[1].lerp_(var, 1 - NORM_MOMENTUM)
        self.t.add_(1)
        rate = LEARNING_RATE / (1 - BETA1**self.t)
        root = torch.sqrt(1 - BETA2**self.t)
        for name, param in self.params.items():
            m, v, g = self.m[name], self.v[name], grads[name]
            m.mul_(BETA1).add_(g, alpha=1 - BETA1)
            v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            param.sub_(rate * m / (torch.sqrt(v) / root + EPSILON))
        return loss

    def __call__(self) -> torch.Tensor:
        return self.compiled(self.rows.next())


class Captured(Modules):
    """Record the eager step in one CUDA graph; the batch is found by a cursor on the device."""

    def __init__(self, workload: Workload, *arguments: Any, **adam: Any) -> None:
        super().__init__(workload, *arguments, **adam)
        self.cursor = torch.arange(workload.batch, device=self.device)
        self.recorded_loss = torch.zeros((), device=self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm-up on a side stream, as PyTorch's manual asks
            for _ in range(3):
                self._body()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        self.adam.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self._body()
        self.reset()

    def reset(self) -> None:
        super().reset()
        if hasattr(self, "cursor"):
            torch.arange(self.rows.workload.batch, out=self.cursor)

    def _body(self) -> None:
        loss = self.train_on(torch.index_select(self.rows.order, 0, self.cursor))
        self.cursor.add_(self.rows.workload.batch).remainder_(self.rows.workload.count)
        self.recorded_loss.copy_(loss)

    def __call__(self) -> torch.Tensor:
        self.rows.next()  # moves the host's position, and draws a new order when an epoch is over
        self.graph.replay()
        return self.recorded_loss


class CapturedSteps(Captured):
    """Record several of these steps in one graph: as many as divide an epoch, whose order comes from the host."""

    def __init__(self, *arguments: Any, **adam: Any) -> None:
        super().__init__(*arguments, **adam)
        batches = self.rows.workload.count // self.rows.workload.batch
        self.length = max(count for count in range(1, MOST_CAPTURED + 1) if batches % count == 0)
        self.recorded_losses = torch.zeros(self.length, device=self.device)
        self.several = torch.cuda.CUDAGraph()
        self.adam.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.several):
            for i in range(self.length):
                self._body()
                self.recorded_losses[i].copy_(self.recorded_loss)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self._ahead: list[float] = []  # losses of steps made and not yet asked for

    def _go(self, most: int) -> torch.Tensor:
        """Return the losses of the steps made, up to `most`: all that a graph has, or one."""
        begun = self.rows.position // self.rows.workload.batch % self.length
        if most < self.length or begun:
            return self()[None]
        self.rows.next(self.length)
        self.several.replay()
        return self.recorded_losses

    def many(self, count: int) -> None:
        while count:
            count -= len(self._go(count))

    def losses(self, count: int) -> list[float]:
        while len(self._ahead) < count:
            self._ahead += self._go(self.length).tolist()
        asked, self._ahead = self._ahead[:count], self._ahead[count:]
        return asked


class Torch(TunedPeer):
    """Share what the PyTorch peers have in common."""

    def candidates(self, device: str) -> dict[str, Callable[..., Stepper]]:
        """Return the ways to write the step, by name."""
        raise NotImplementedError

    def make(self, workload: Workload, data: Data, weights: Mapping[str, np.ndarray], device: str) -> None:
        torch.set_num_threads(threads())
        torch._dynamo.reset()  # a process may train one net after the other, and the compiler counts
        torch.set_float32_matmul_precision("high" if workload.precision == "tf32" else "highest")
        candidates = self.candidates(device).items()
        self.build(workload, {name: partial(way, workload, data, weights, device) for name, way in candidates})

    def settle(self) -> None:
        super().settle()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # the memory of the other ways


class Eager(Torch):
    """Train as most people run it."""

    def candidates(self, device: str) -> dict[str, Callable[..., Stepper]]:
        strategies: dict[str, Callable[..., Stepper]] = {"fused Adam": partial(Modules, fused=True)}
        if device == "cpu":  # on an H100 it took 6 to 30 % longer on every net
            strategies["foreach Adam"] = partial(Modules, foreach=True)
        return strategies


class Compiled(Torch):
    """Train by torch.compile: forward and backward with the fused optimizer beside, or the whole step in one graph."""

    def candidates(self, device: str) -> dict[str, Callable[..., Stepper]]:
        parts = {"forward and backward compiled, fused Adam": partial(Modules, compiled={}, fused=True)}
        if device == "cpu":
            cpp = partial(WholeStep, options={"cpp_wrapper": True})
            return {"whole step compiled": WholeStep, **parts, "whole step compiled, C++ wrapper": cpp}
        return {"whole step compiled, reduce-overhead": partial(WholeStep, mode="reduce-overhead"), **parts}


class Graph(Torch):
    """Launch one CUDA graph a step."""

    kind: type[Captured] = Captured

    def candidates(self, device: str) -> dict[str, Callable[..., Stepper]]:
        adam: dict[str, Any] = {"fused": True, "capturable": True}
        return {
            "forward and backward compiled, fused Adam, captured": partial(self.kind, compiled={}, **adam),
            "fused Adam, captured": partial(self.kind, **adam),
        }


class Steps(Graph):
    """Launch one CUDA graph for several steps."""

    kind = CapturedSteps

"""What whole training steps are compared on: nets, data and goals, as data.

Every net is {affine - [batch norm] - ReLU or tanh - [dropout]} x hidden layers - affine - softmax loss or mean squared
error, trained in float32 by Adam on shuffled mini-batches of a data set in memory. On a GPU some have their products in
lower precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fcnet import defaults
from fcnet.backends import Purpose, host_generator
from fcnet.data import learn
from fcnet.nn.init import initial_weights, weight_std

LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8  # Adam's, for every contender
NORM_EPS, NORM_MOMENTUM = 1e-5, 0.9  # batch norm's; the momentum weighs the old running value
SEED = 0
MIN_ROWS, MIN_BATCHES = 5000, 20
LATER, LATER_BATCHES = 5000, 4  # steps of the long form, and batches of its data
LATER_WIDE = 900  # of a net with more operations a step than WIDE: past the 830 after which 0.9^t is denormal
WIDE = 1e9


@dataclass(frozen=True)
class Workload:
    """Describe one net and how it is trained.

    Attributes:
        steps: of a turn. The same for every contender, so that all of them train equally far and meet the same
            values (a faster one that went on longer would meet smaller gradients); about a quarter of a second.
        keep: probability to keep a hidden unit; 1 for no dropout.
        rows: of the data set; 0: the smallest number of whole batches with at least 5000 rows and 20 batches. Whole,
            because then each step has one shape (a short last batch would cost some frameworks a second
            compilation); 20 batches of the wide nets exceed any cache, so the gather reads from memory as in use.
        tolerance: allowed relative difference of the first losses from the float64 answer: about ten times what
            rounding was seen to do. It grows with the net because Adam's first updates are nearly sign(gradient):
            where a gradient is near 0, rounding turns a whole step round.
        precision: of the matrix products: "float32", "tf32" or "bf16".
        first: allowed relative difference of the very first loss, before any update.
        proof_steps: losses that are compared.
        goal: time of the best framework over fcnet's that is to be reached; None: none was set.
        goal_ceiling: share of the speed of one large product, in this precision, that the step's products are to reach.
        goal_numpy: time of plain NumPy over that of fcnet without Numba.
        activation: "relu" or "tanh". numeric: the targets are numbers, one for each output, and the loss their mean
            squared error.
        before: steps that are made before the first round, for what a training is like later on.
        defaults: fcnet trains by its defaults but for the batch, without penalty; the others have the data
            preprocessed as fcnet does, and its Adam.
    """

    name: str
    inputs: int
    hidden: tuple[int, ...]
    batch: int
    steps: int
    outputs: int = 10
    norm: bool = False
    keep: float = 1.0
    rows: int = 0
    tolerance: float = 5e-3
    precision: str = "float32"
    first: float = 1e-5
    proof_steps: int = 20
    goal: float | None = None
    goal_numpy: float | None = None
    goal_ceiling: float | None = None
    activation: str = "relu"
    numeric: bool = False
    before: int = 0
    defaults: bool = False

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Workload:
        """Return the inverse of `to_dict`."""
        return cls(**(dict(fields) | {"hidden": tuple(fields["hidden"])}))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return dataclasses.asdict(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the widths of all layers, the input's first."""
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def layers(self) -> int:
        """Return how many affine layers there are."""
        return len(self.hidden) + 1

    @property
    def count(self) -> int:
        """Return the rows of the data set, a multiple of the batch."""
        return self.rows or -(-max(MIN_ROWS, MIN_BATCHES * self.batch) // self.batch) * self.batch

    @property
    def parameters(self) -> int:
        """Return how many numbers are trained."""
        affine = sum((before + 1) * after for before, after in zip(self.widths, self.widths[1:], strict=False))
        return affine + (2 * sum(self.hidden) if self.norm else 0)

    @property
    def flops(self) -> int:
        """Return the operations of a step's matrix products; the first layer's input needs no gradient."""
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        products = 3 * sum(before * after for before, after in pairs) - pairs[0][0] * pairs[0][1]
        return 2 * self.batch * products

    @property
    def memory(self) -> int:
        """Return the bytes that training needs: five arrays of the parameters' size, the data, the activations.

        Activations: the gathered batch, and for each hidden layer what affine, batch norm, ReLU and dropout hand on,
        with one gradient of that size; scores and their gradient.
        """
        stages = 3 + self.norm + (self.keep < 1)
        activations = self.batch * (self.inputs + stages * sum(self.hidden) + 2 * self.outputs)
        return 4 * (5 * self.parameters + self.count * self.inputs + activations) + 8 * self.count

    def later(self) -> Workload:
        """Return this net after LATER steps on few samples (a wide one after fewer), when gradients have become small
        and some are 0.
        """
        return dataclasses.replace(
            self,
            name=f"{self.name}-later",
            rows=min(self.count, LATER_BATCHES * self.batch),
            before=LATER_WIDE if self.flops > WIDE else LATER,
        )

    def describe(self) -> str:
        """Return the net in a few words: 784-4x100-10, batch 100."""
        same = len(set(self.hidden)) == 1 and len(self.hidden) > 1
        middle = f"{len(self.hidden)}x{self.hidden[0]}" if same else "-".join(map(str, self.hidden))
        parts = [f"{self.inputs}-{middle}-{self.outputs}" if middle else f"{self.inputs}-{self.outputs}"]
        parts += [f"batch {self.batch}"] + ["batch norm"] * self.norm
        parts += [f"dropout {self.keep:g}"] if self.keep < 1 else []
        parts += [self.activation] * (self.activation != "relu") + ["squared error"] * self.numeric
        parts += ["fcnet's defaults"] * self.defaults
        parts += [f"after {self.before:,} steps on {self.count:,} samples"] if self.before else []
        return ", ".join(parts + ([self.precision] if self.precision != "float32" else []))

    @property
    def device_memory(self) -> int:
        """Return the bytes of training on a GPU: as `memory`, but the best parameters are kept on the host."""
        return self.memory - 4 * self.parameters


def _by_name(*workloads: Workload) -> dict[str, Workload]:
    return {workload.name: workload for workload in workloads}


#: Rounding to few bits moves a loss by about their last one, and Adam then doubles the difference with every step.
_TF32: dict[str, Any] = {"precision": "tf32", "first": 2e-3, "tolerance": 5e-2, "proof_steps": 10}
_LARGE: dict[str, Any] = {
    "inputs": 3072,
    "hidden": (4096,) * 4,
    "batch": 8192,
    "steps": 10,
    "rows": 4 * 8192,
    "goal": 1.0,
}
_CPU = _by_name(
    Workload("tab", 54, (64, 64), 64, 1000, outputs=7, tolerance=5e-5, goal=2.5, goal_numpy=1.0),
    Workload("mnist", 784, (100,) * 4, 100, 250, tolerance=5e-5, goal=1.5, goal_numpy=1.2),
    Workload("cifar", 3072, (100,) * 3, 100, 120, norm=True, keep=0.8, tolerance=1e-4, goal=1.6, goal_numpy=1.5),
    # SimpleChains.jl's own benchmark: the exponential of a 2 x 2 matrix, every sample in each step.
    Workload(
        *("matrix", 4, (32, 16), 10_000, 50),
        outputs=4,
        rows=10_000,
        activation="tanh",
        numeric=True,
        tolerance=1e-4,
        goal=5.0,
    ),
    Workload("defaults", 54, (100,), 200, 1000, outputs=7, tolerance=1e-4, goal_numpy=1.0, defaults=True),
    Workload("bn", 3072, (512, 512), 512, 16, norm=True, tolerance=2e-3, goal=1.1, goal_numpy=1.5),
    Workload("wide", 3072, (1024, 1024), 256, 16, tolerance=5e-3, goal=1.0, goal_numpy=1.5),
)
_CUDA = _by_name(
    Workload("mnist", 784, (100,) * 4, 100, 2000, tolerance=5e-5, goal=3.5),
    Workload("cifar", 3072, (100,) * 3, 100, 2000, norm=True, keep=0.8, tolerance=1e-4, goal=3.0),
    Workload("wide", 3072, (1024, 1024), 256, 1000, goal=1.25, **_TF32),
    Workload("large-tf32", **(_LARGE | _TF32 | {"proof_steps": 2, "goal": 1.06}), goal_ceiling=0.68),
    Workload(
        "large-bf16",
        **(_LARGE | {"goal": 1.05}),
        precision="bf16",
        first=1e-2,
        tolerance=0.2,
        proof_steps=2,
        goal_ceiling=0.62,
    ),
)
WORKLOADS: dict[str, dict[str, Workload]] = {"cpu": _CPU, "cuda": _CUDA}  # by the kind of device


def workloads_for(device: str) -> dict[str, Workload]:
    """Return what is compared on a device such as "cuda:0", by name."""
    return WORKLOADS[device.partition(":")[0]]


class Data(NamedTuple):
    """Hold X (rows, inputs) float32, y (rows,) int64 or, where the targets are numbers, (rows, outputs) float32."""

    X: np.ndarray
    y: np.ndarray


def draw(workload: Workload) -> Data:
    """Draw seeded noise about one mean per class, and one label in ten at random: learnable, but not at once.

    Made in place, so that making it takes no more memory than it has. Numbers to predict are smooth functions of all
    inputs, with mean 0 and standard deviation 1.
    """
    rng = np.random.default_rng(SEED)
    X = rng.standard_normal((workload.count, workload.inputs), dtype=np.float32)
    if workload.numeric:
        mixed = np.sin(X.astype(np.float64) @ rng.standard_normal((workload.inputs, workload.outputs)))
        return Data(X, ((mixed - mixed.mean(0)) / mixed.std(0)).astype(np.float32))
    y = rng.integers(0, workload.outputs, workload.count)
    means = rng.standard_normal((workload.outputs, workload.inputs), dtype=np.float32)
    means *= np.float32(2 / workload.inputs**0.5)
    for start in range(0, workload.count, 256):
        X[start : start + 256] += means[y[start : start + 256]]
    wrong = rng.random(workload.count) < 0.1
    y[wrong] = rng.integers(0, workload.outputs, int(wrong.sum()))
    return Data(X, y)


def prepared(workload: Workload, data: Data) -> Data:
    """Return what the others train on: the data, preprocessed as fcnet does by default where that is asked for."""
    if not workload.defaults:
        return data
    return data._replace(X=learn(defaults.PREPROCESS, data.X).apply(data.X, np.float32))


def initial(workload: Workload) -> dict[str, np.ndarray]:
    """Return W1 (D, M), b1, [gamma1, beta1], W2, ..., float32, exactly those that fcnet starts from with this seed."""
    weights: dict[str, np.ndarray] = {}
    for layer, shape in enumerate(zip(workload.widths, workload.widths[1:], strict=False), 1):
        std = weight_std(None, None, "he", shape[0])
        weights[f"W{layer}"] = initial_weights(SEED, layer, shape, std).astype(np.float32)
        weights[f"b{layer}"] = np.zeros(shape[1], np.float32)
        if workload.norm and layer < workload.layers:
            weights[f"gamma{layer}"] = np.ones(shape[1], np.float32)
            weights[f"beta{layer}"] = np.zeros(shape[1], np.float32)
    return weights


def permutation(workload: Workload, epoch: int) -> np.ndarray:
    """Return the order of the rows in this epoch, as `fcnet.Solver` draws it; batches are consecutive parts of it."""
    return host_generator(SEED, Purpose.SHUFFLE, step=epoch).permutation(workload.count)


def batches(workload: Workload) -> Iterator[np.ndarray]:
    """Yield the row numbers of batch after batch, without end."""
    epoch = 0
    while True:
        order = permutation(workload, epoch)
        for start in range(0, workload.count, workload.batch):
            yield order[start : start + workload.batch]
        epoch += 1

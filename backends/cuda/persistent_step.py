"""A recorded step of a small network as launches of the persistent kernel, each of one or many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fcnet.backends.cuda.persistent import JOB, THREADS, Plan, best_plan
from fcnet.backends.cuda.recognize import Net, Unfit, read
from fcnet.backends.cuda.sources import source
from fcnet.backends.device import Array, Call

STEPS_AT_ONCE = 1024
OLDEST = 70  # compute capability that sync.cu compiles for


def plan_for(cupy: Any, calls: Sequence[Call], index: int, most_rows: int) -> tuple[Net, Plan]:
    """Return the network that these calls train, and a plan of how the device's blocks share its step.

    Batches of fewer rows than `most_rows`, such as the last of an epoch, have the plan of `most_rows`, and thus the
    same compiled kernel: it reads the number of rows each time, and to compile takes longer than many a training.

    Raises:
        Unfit: the kernel cannot train it, or it does not fit the device; the message says why.
    """
    net = read(calls, cupy.ndarray)
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    if not properties.get("cooperativeLaunch"):
        raise Unfit("the device has no cooperative launches")
    if int(cupy.cuda.Device(index).compute_capability) < OLDEST:
        raise Unfit(f"its compute capability is below {OLDEST / 10}: blocks cannot await each other")
    plan = best_plan(
        net.widths,
        max(net.rows, most_rows),
        blocks=properties["multiProcessorCount"],
        shared=properties["sharedMemPerBlockOptin"],
        norm=net.norm,
        regularized=bool(net.values.get("reg")),
        lasso=bool(net.values.get("l1")),
        decayed=bool(net.values.get("weight_decay")),
        clipped="clip" in net.values,
        rule=net.rule,
        x_type=net.x_type,
        frozen=net.frozen,
        rates_at=net.rates_at,
        activation=net.activation,
        loss=net.loss,
        smoothed="target_keep" in net.values,
        weighted="sample_weights" in net.arrays,
        threads=THREADS,
    )
    if plan is None:
        blocks = properties["multiProcessorCount"]
        raise Unfit(f"it is too large for the {blocks} blocks that the device keeps resident")
    return net, plan


class PersistentStep:
    """Make training steps of one batch size.

    Attributes:
        plan: how the blocks share the work. most: see `ManySteps`.
    """

    most = STEPS_AT_ONCE

    def __init__(
        self, cupy: Any, net: Net, plan: Plan, index: int, upload: Callable[[np.ndarray, Array], None]
    ) -> None:
        """Compile the kernel, or load it from CuPy's cache; `upload` as in `Backend`.

        Raises:
            Unfit: the device keeps fewer blocks resident than the plan has, as when another process shares it.
        """
        self.plan = plan
        self._net, self._cupy, self._upload = net, cupy, upload
        self._processors = cupy.cuda.runtime.getDeviceProperties(index)["multiProcessorCount"]
        code = plan.definitions(net.offsets) + source("persistent")
        module = cupy.RawModule(code=code, enable_cooperative_groups=True, options=("-std=c++17",))
        self._kernel = module.get_function("train_steps")
        self._kernel.max_dynamic_shared_size_bytes = plan.shared
        self._check_resident()
        self._own = {name: cupy.zeros(size, kind) for name, (size, kind) in plan.buffers().items()}
        self._host_table = np.zeros((STEPS_AT_ONCE, len(plan.rates_at)))
        self._table = cupy.zeros(self._host_table.shape, "float64")  # the rates of a launch, if its steps differ
        job = np.zeros(1, JOB)
        for name, array in (self._own | net.arrays).items():
            job[name] = array.data.ptr - (4 * net.before if name in ("params", "moment1", "moment2") else 0)
        for name, value in net.values.items():
            job[name] = value
        self._job = cupy.asarray(job.view(np.uint8))

    def _check_resident(self) -> None:
        """Check that all blocks can be resident: the others would wait forever for a missing one, without an error."""
        cuda, plan = self._cupy.cuda, self.plan
        each = cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(self._kernel.kernel.ptr, plan.threads, plan.shared)
        resident = each * self._processors
        if resident < plan.blocks:
            raise Unfit(f"the device keeps {resident} of the {plan.blocks} blocks resident that it would take")

    @property
    def description(self) -> str:
        """Return how a step is made, as a line of text."""
        return f"one kernel of {self.plan.blocks} blocks makes up to {self.most} steps a launch"

    def __call__(self) -> None:
        self.steps(1, None)

    def steps(self, count: int, rates: Sequence[Sequence[float]] | None, again: bool = False) -> None:
        """Make `count` steps, at most `STEPS_AT_ONCE`, within one epoch and one log of losses.

        Args:
            rates: each step's learning rates, one for each of the optimizer's groups; None: all steps have those set.
        """
        table: Array = self._net.rates
        if rates is not None:
            self._host_table[:count] = rates
            self._upload(self._host_table, self._table)  # the whole table: staging buffers are kept by size
            table = self._table
        arguments = self._job, table, np.int32(1 if rates is None else count), np.int32(count)
        self._kernel((self.plan.blocks,), (self.plan.threads,), arguments, shared_mem=self.plan.shared)

"""The table of all CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fcnet.backends.cuda.affine import AffineKernels, run_in_turn
from fcnet.backends.cuda.batch import BatchKernels
from fcnet.backends.cuda.hidden import HiddenKernels
from fcnet.backends.cuda.launch import Launcher
from fcnet.backends.cuda.loss import LossKernels
from fcnet.backends.cuda.optim import OptimKernels
from fcnet.backends.device import Array, Kernel


def cuda_kernels(
    launcher: Launcher, gemm: Callable[..., Array], run_concurrently: Callable[..., None] = run_in_turn
) -> Mapping[str, Kernel]:
    """Return the kernels of one device by the name of the reference function; arguments as in `AffineKernels`."""
    kinds = HiddenKernels(launcher), LossKernels(launcher), OptimKernels(launcher), BatchKernels(launcher)
    tables = [AffineKernels(launcher, gemm, run_concurrently).table(), *(kind.table() for kind in kinds)]
    return {name: kernel for table in tables for name, kernel in table.items()}

"""How fast a device is at best: one large product in each precision, one large copy; the measure of all shares.

The matrices are random: on constant ones a GPU's arithmetic takes less power, its clock stays higher, and the product
is some tenths faster than any that a training makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import summarize
from fcnet.backends import Array, Backend, get_backend

SIDE = 8192  # of the matrices of the product, on a GPU
SIDE_CPU = 1024
COPIED = 1 << 30  # bytes, on a GPU
COPIED_CPU = 1 << 26
ROUNDS, ROUND_S = 7, 0.02


def measure(device: str, side: int | None = None) -> dict[str, Any]:
    """Measure FLOP/s of a product in each precision that the device has, and bytes per second of a copy.

    The product is fcnet's own and, where PyTorch is installed and sees the device, PyTorch's, whose bfloat16 operands
    need no rounding: the faster counts.
    """
    backend = get_backend(device)
    on_cpu = device == "cpu"
    side = side or (SIDE_CPU if on_cpu else SIDE)
    flops = {name: 2 * side**3 / seconds for name, seconds in _products(backend, side).items()}
    xp = backend.xp
    source = _long(backend, (COPIED_CPU if on_cpu else COPIED) // 4)
    target = xp.zeros(source.shape, dtype="float32")

    def copy() -> None:
        target[...] = source

    return {"side": side, "flops": flops, "bytes": 2 * source.nbytes / _seconds(copy, backend.synchronize)}


def described(found: Mapping[str, Any]) -> str:
    """Return what `measure` found, in a line."""
    speeds = ", ".join(f"{name} {flops / 1e12:.1f} TFLOP/s" for name, flops in found["flops"].items())
    side, copied = found["side"], found["bytes"] / 1e9
    return f"One product of random {side} x {side} matrices: {speeds}; a copy: {copied:.0f} GB/s."


def _long(backend: Backend, size: int) -> Array:
    """Return a long random array; a drawn piece of it, repeated: drawing it all would take the host seconds."""
    piece = np.random.default_rng(0).standard_normal(min(size, 1 << 20), dtype=np.float32)
    return backend.xp.tile(backend.asarray(piece), size // len(piece))


def _products(backend: Backend, side: int) -> dict[str, float]:
    """Return the seconds of a product in each precision."""
    a, b = (backend.asarray(drawn) for drawn in _matrices(side))
    out = backend.xp.empty((side, side), dtype="float32")
    found = {}
    for name in ("float32", *backend.precisions):
        product = partial(backend.gemm, a, b, out=out, precision=None if name == "float32" else name)
        found[name] = _seconds(product, backend.synchronize)
    for name, seconds in _of_torch(backend, side, list(found)).items():
        found[name] = min(found[name], seconds)
    return found


def _matrices(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two seeded matrices of normal numbers."""
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((side, side), dtype=np.float32) for _ in range(2))
    return first, second


def _of_torch(backend: Backend, side: int, precisions: list[str]) -> dict[str, float]:
    try:
        import torch
    except ImportError:
        return {}
    on_cpu = backend.name == "cpu"
    if not on_cpu and not torch.cuda.is_available():
        return {}
    found = {}
    before = torch.get_float32_matmul_precision()
    try:
        for name in precisions:
            torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
            kind = torch.bfloat16 if name == "bf16" else torch.float32
            a, b = (torch.randn((side, side), dtype=kind, device=backend.name) for _ in range(2))
            out = torch.empty_like(a)
            wait = (lambda: None) if on_cpu else torch.cuda.synchronize
            found[name] = _seconds(partial(torch.matmul, a, b, out=out), wait)
    finally:
        torch.set_float32_matmul_precision(before)
    return found


def _seconds(call: Callable[[], object], synchronize: Callable[[], object]) -> float:
    """Return the median of a call's time over rounds that are each waited for."""
    call(), synchronize()
    start = time.perf_counter()
    call(), synchronize()
    calls = max(1, round(ROUND_S / (time.perf_counter() - start)))
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize()
        taken.append((time.perf_counter() - start) / calls)
    return summarize(taken).median_us / 1e6

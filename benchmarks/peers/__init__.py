"""Whole training steps, fcnet's and those of others, each in a process of its own: see `benchmarks.compare`.

A contender is a small class (`peers.base.Peer`) and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Contender:
    """Describe how to start a contender.

    Attributes:
        target: its class, as module:name.
        packages: distributions whose versions are recorded; without the first it is unavailable.
        environment: variables of its process.
        devices: what it runs on.
        counts: whether it is one of the frameworks among which the best is sought.
        beside: comes along when this other one is asked for.
        short: has several steps in a call, which is of use only where a call may take as long as a step.
    """

    name: str
    target: str
    packages: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu",)
    counts: bool = False
    beside: str = ""
    short: bool = False


BOTH = ("cpu", "cuda")
_SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # the GPU has other guests: three quarters are not JAX's to take
_ALL = (
    Contender("fcnet", "benchmarks.peers.ours:Ours", ("numpy", "numba", "cupy-cuda12x", "cupy-cuda13x"), devices=BOTH),
    Contender("fcnet-numpy", "benchmarks.peers.ours:Ours", ("numpy",), {"FCNET_NUMBA": "0"}),
    Contender("torch", "benchmarks.peers.with_torch:Eager", ("torch",), devices=BOTH, counts=True),
    Contender("torch-compile", "benchmarks.peers.with_torch:Compiled", ("torch",), devices=BOTH, counts=True),
    Contender("torch-graph", "benchmarks.peers.with_torch:Graph", ("torch",), devices=("cuda",), counts=True),
    Contender(
        "torch-steps", "benchmarks.peers.with_torch:Steps", ("torch",), devices=("cuda",), counts=True, short=True
    ),
    Contender("jax", "benchmarks.peers.with_jax:Jax", ("jax", "jaxlib"), _SHARED, devices=BOTH, counts=True),
    Contender(
        *("jax-scan", "benchmarks.peers.with_jax:Scan", ("jax", "jaxlib"), _SHARED),
        devices=("cuda",),
        counts=True,
        short=True,
    ),
    Contender("jax-sync", "benchmarks.peers.with_jax:Synchronous", ("jax", "jaxlib"), counts=True, beside="jax"),
    Contender("sklearn", "benchmarks.peers.with_sklearn:Sklearn", ("scikit-learn",), counts=True),
    Contender("naive", "benchmarks.peers.naive:Naive", ("numpy",)),
    Contender("gemm", "benchmarks.peers.gemm:Gemm", ("numpy",)),
)
CONTENDERS: dict[str, Contender] = {contender.name: contender for contender in _ALL}
OWN = ("fcnet", "fcnet-numpy")  # always there
FLOOR = "gemm"  # likewise; computes no loss
AHEAD = ("jax", "jax-scan")  # hand out steps before the last one is done, on a second thread; a twin waits for each
PEERS = tuple(
    name for name in CONTENDERS if name not in (*OWN, FLOOR) and not CONTENDERS[name].beside
)  # what --peers chooses from

"""Fully connected neural networks, trained by the same code on NumPy (CPU) and CuPy (CUDA GPU).

>>> import fcnet
>>> ds = fcnet.data.load("spirals")
>>> model = fcnet.FullyConnectedNet([100], input_dim=2, num_classes=3, device="cpu")
>>> solver = fcnet.Solver(model, ds, update_rule="adam", num_epochs=5, verbose=False)
>>> history = solver.train()
"""

import backends as _backends

if getattr(_backends, "OWNER", None) != "fcnet":
    raise ImportError(
        "fcnet imported another package called 'backends' in place of its own, from "
        f"{getattr(_backends, '__file__', None) or list(_backends.__path__)}; "
        "rename that folder or start Python elsewhere"
    )

from typing import TYPE_CHECKING

from backends import DeviceError, MaskStream, array_module, get_backend
from fcnet import data, functional, lazy
from fcnet.errors import DivergedError, MissingExtra
from fcnet.model import FullyConnectedNet, TwoLayerNet
from fcnet.optim import Optimizer
from fcnet.solver import Solver

if TYPE_CHECKING:
    from fcnet import babysit as babysit
    from fcnet import neighbors as neighbors
    from fcnet import study as study
    from fcnet.babysit import activation_statistics, check, lr_range
    from fcnet.checkpoint import load
    from fcnet.neighbors import KNearestNeighbors, pairwise_distances
    from fcnet.numerical import gradcheck
    from fcnet.study import search
    from fcnet.transfer import copy_layers, pretrained

_LATER = {
    "KNearestNeighbors": "fcnet.neighbors",
    "activation_statistics": "fcnet.babysit",
    "babysit": "fcnet.babysit",
    "check": "fcnet.babysit",
    "copy_layers": "fcnet.transfer",
    "gradcheck": "fcnet.numerical",
    "load": "fcnet.checkpoint",
    "lr_range": "fcnet.babysit",
    "neighbors": "fcnet.neighbors",
    "pairwise_distances": "fcnet.neighbors",
    "pretrained": "fcnet.transfer",
    "search": "fcnet.study",
    "study": "fcnet.study",
}
__getattr__, __dir__ = lazy.attach(__name__, _LATER)

__version__ = "0.1.0"

__all__ = [
    "DeviceError",
    "DivergedError",
    "FullyConnectedNet",
    "KNearestNeighbors",
    "MaskStream",
    "MissingExtra",
    "Optimizer",
    "Solver",
    "TwoLayerNet",
    "activation_statistics",
    "array_module",
    "check",
    "copy_layers",
    "data",
    "functional",
    "get_backend",
    "gradcheck",
    "load",
    "lr_range",
    "pairwise_distances",
    "pretrained",
    "search",
]

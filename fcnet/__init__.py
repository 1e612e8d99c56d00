"""Fully connected neural networks, trained by the same code on NumPy (CPU) and CuPy (CUDA GPU).

>>> import fcnet
>>> ds = fcnet.data.load("spirals")
>>> model = fcnet.FullyConnectedNet([100], input_dim=2, num_classes=3, device="cpu")
>>> solver = fcnet.Solver(model, ds, update_rule="adam", num_epochs=5, verbose=False)
>>> history = solver.train()

What there is, and where it comes from, stands in `__init__.pyi`.
"""

from fcnet import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, __file__)

__version__ = "0.1.0"

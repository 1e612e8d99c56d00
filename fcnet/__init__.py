"""Fully connected neural networks, trained by the same code on NumPy (CPU) and CuPy (CUDA GPU).

>>> import fcnet
>>> ds = fcnet.data.load("spirals")
>>> model = fcnet.FullyConnectedNet([100], input_dim=2, num_classes=3, device="cpu")
>>> solver = fcnet.Solver(model, ds, update_rule="adam", num_epochs=5, verbose=False)
>>> history = solver.train()

What there is, and where it comes from, stands in `__init__.pyi`.
"""

from fcnet import interrupts  # the first, so that nothing is imported before

if interrupts.is_program():
    interrupts.answer()

import os.path

from fcnet import lazy

if os.path.isfile(os.path.join(os.path.dirname(__file__), "backends")):
    raise ImportError(
        "fcnet/backends: expected a link to the folder ../backends, got the text file that git writes where links are "
        "switched off; git config core.symlinks true, then git checkout -- fcnet/backends; or install a wheel"
    )

__getattr__, __dir__, __all__ = lazy.attach(__name__, __file__)

__version__ = "0.1.0"

"""Data on the host: loading, splitting, preprocessing and fetching. Plain NumPy; no device is named here.

>>> import fcnet.data
>>> print(fcnet.data.load("spirals").summary())
spirals: 480 train, 60 val, 60 test, 2 features, 3 classes
"""

from fcnet import lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, __file__)

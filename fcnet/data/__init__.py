"""Data on the host: loading, splitting, preprocessing and fetching. Plain NumPy; no device is named here.

>>> import fcnet.data
>>> print(fcnet.data.load("spirals").summary())
spirals: 480 train, 60 val, 60 test, 2 features, 3 classes
"""

from typing import TYPE_CHECKING

from fcnet import lazy
from fcnet.data.catalogue import NAMES
from fcnet.data.dataset import Dataset
from fcnet.data.preprocessing import KINDS, Preprocessing, learn

if TYPE_CHECKING:
    from fcnet.data import inputs
    from fcnet.data.fetching import fetch
    from fcnet.data.loading import load
    from fcnet.data.splits import stratified_split
    from fcnet.data.synthetic import spirals
    from fcnet.data.table import read_features

_LATER = {
    "fetch": "fcnet.data.fetching",
    "inputs": "fcnet.data.inputs",
    "load": "fcnet.data.loading",
    "read_features": "fcnet.data.table",
    "spirals": "fcnet.data.synthetic",
    "stratified_split": "fcnet.data.splits",
}
__getattr__, __dir__ = lazy.attach(__name__, _LATER)

__all__ = [
    "KINDS",
    "NAMES",
    "Dataset",
    "Preprocessing",
    "fetch",
    "inputs",
    "learn",
    "load",
    "read_features",
    "spirals",
    "stratified_split",
]

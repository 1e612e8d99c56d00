"""Data on the host: loading, splitting, preprocessing and fetching. Plain NumPy; no device is named here.

>>> import fcnet.data
>>> print(fcnet.data.load("spirals").summary())
spirals: 480 train, 60 val, 60 test, 2 features, 3 classes
"""

from fcnet.data import inputs
from fcnet.data.catalogue import NAMES
from fcnet.data.dataset import Dataset
from fcnet.data.fetch import fetch
from fcnet.data.loading import load
from fcnet.data.preprocessing import KINDS, Preprocessing, learn
from fcnet.data.splits import stratified_split
from fcnet.data.synthetic import spirals
from fcnet.data.table import read_features

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

# The public names: read by type checkers and editors, and by `fcnet.lazy`, which imports each when it is asked for.

from fcnet import backends as backends
from fcnet import data as data
from fcnet import errors as errors
from fcnet import functional as functional
from fcnet import optim as optim
from fcnet.backends.random import MaskStream as MaskStream
from fcnet.backends.select import DeviceError as DeviceError
from fcnet.backends.select import array_module as array_module
from fcnet.backends.select import get_backend as get_backend
from fcnet.errors import DivergedError as DivergedError
from fcnet.errors import MissingExtra as MissingExtra
from fcnet.errors import TrainingWarning as TrainingWarning
from fcnet.nn.model import FullyConnectedNet as FullyConnectedNet
from fcnet.nn.model import TwoLayerNet as TwoLayerNet
from fcnet.nn.model import load as load
from fcnet.nn.transfer import copy_layers as copy_layers
from fcnet.nn.transfer import pretrained as pretrained
from fcnet.optim.optimizers import Optimizer as Optimizer
from fcnet.tools.diagnostics.activations import activation_statistics as activation_statistics
from fcnet.tools.diagnostics.rates import lr_range as lr_range
from fcnet.tools.diagnostics.sanity import check as check
from fcnet.tools.gradcheck import gradcheck as gradcheck
from fcnet.tools.neighbors import KNearestNeighbors as KNearestNeighbors
from fcnet.tools.neighbors import pairwise_distances as pairwise_distances
from fcnet.tools.search.searching import search as search
from fcnet.training.solver import Solver as Solver

__version__: str

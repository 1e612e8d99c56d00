"""Saito, "Deep Learning from Scratch" (O'Reilly), chapters 3 to 6: the book's names and conventions over fcnet's code.

No formula of its own where fcnet has one: layers and functions call `fcnet.functional`, optimizers
`fcnet.optim.rules`. Names can be imported from here or, as from the book's folder `common`, from the submodules. After
`install()` the book's scripts on fully connected nets run unmodified: `from common.layers import *` and `from
dataset.mnist import load_mnist` find this package. Those are of chapters 3 (with MNIST), 4, 5 and 6. The command
`python -m fcnet.compat.dlfs SCRIPT` runs one of them with `install()` ahead of it.

What is the book's, and differs from fcnet's own: a dropout number is the share *dropped*, and dropout is plain (nothing
scaled while training, everything when testing); 1e-7 in the optimizers, which Adam adds to sqrt(v) itself, before v is
corrected for its bias, and in the logarithm of the cross-entropy; 10e-7, that is 1e-6, in batch norm; mini-batches
drawn with replacement. Weights, mini-batches, dropout masks and shuffles come from NumPy's global generator, in the
book's order: after the same np.random.seed a script gives the book's own numbers, to rounding. A keyword `seed`, not
the book's, gives any of them a generator of its own.

>>> import numpy as np
>>> from fcnet.compat.dlfs import SGD, MultiLayerNet
>>> network = MultiLayerNet(input_size=4, hidden_size_list=[20], output_size=3)
>>> x, t = np.ones((5, 1, 2, 2)), np.array([0, 1, 2, 0, 1])
>>> before = network.loss(x, t)
>>> SGD(lr=0.1).update(network.params, network.gradient(x, t))
>>> bool(network.loss(x, t) < before)
True
"""

import sys
from importlib.util import find_spec

from fcnet.compat import _install
from fcnet.compat.dlfs.dataset.mnist import load_mnist
from fcnet.compat.dlfs.functions import (
    cross_entropy_error,
    identity_function,
    mean_squared_error,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from fcnet.compat.dlfs.gradient import numerical_gradient, numerical_gradient_2d
from fcnet.compat.dlfs.layers import (
    Affine,
    BatchNormalization,
    Dropout,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
)
from fcnet.compat.dlfs.multi_layer_net import MultiLayerNet
from fcnet.compat.dlfs.multi_layer_net_extend import MultiLayerNetExtend
from fcnet.compat.dlfs.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from fcnet.compat.dlfs.trainer import Trainer
from fcnet.compat.dlfs.two_layer_net import TwoLayerNet
from fcnet.compat.dlfs.util import conv_output_size, shuffle_dataset, smooth_curve

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Affine",
    "BatchNormalization",
    "Dropout",
    "Momentum",
    "MultiLayerNet",
    "MultiLayerNetExtend",
    "Nesterov",
    "RMSprop",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "Tanh",
    "Trainer",
    "TwoLayerNet",
    "conv_output_size",
    "cross_entropy_error",
    "identity_function",
    "install",
    "load_mnist",
    "mean_squared_error",
    "numerical_gradient",
    "numerical_gradient_2d",
    "relu",
    "relu_grad",
    "shuffle_dataset",
    "sigmoid",
    "sigmoid_grad",
    "smooth_curve",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


def install() -> None:
    """Make `import common` and `import dataset`, the book's folders, and their submodules find this package.

    So does `import two_layer_net`, unless there is a file of that name to be found, such as a reader's own.
    What is not here, such as common.simple_convnet or common.layers.Convolution, says so when it is imported, or, if
    a star import was to bring it, when it is used.

    Raises:
        ImportError: another package called common or dataset has been imported already.
    """
    names = {"common": __name__, "dataset": f"{__name__}.dataset"}
    if "two_layer_net" not in sys.modules and find_spec("two_layer_net") is None:
        names["two_layer_net"] = f"{__name__}.two_layer_net"
    _install.install(names)

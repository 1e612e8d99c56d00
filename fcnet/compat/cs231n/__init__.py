"""Stanford CS231n, assignments 1 and 2, 2016 to 2026: the course's names and behaviour over fcnet's code.

No formula of its own where fcnet has one: layers and linear classifiers call `fcnet.functional`, rules
`fcnet.optim.rules`, gradient checks `fcnet.tools.gradcheck`, the nearest neighbours `fcnet.tools.neighbors`. Names can
be imported from here or, as in the course, from the submodules; the two-layer net of the years before 2021, which
trains itself, is in `classifiers.neural_net`. After `install()` the course's notebooks run unmodified: `from
cs231n.classifiers.fc_net import *` finds this package. Those are, of assignment 1, knn, svm, softmax, two_layer_net
and features, and of assignment 2 FullyConnectedNets, BatchNormalization and Dropout.

>>> import numpy as np
>>> from fcnet.compat.cs231n import FullyConnectedNet
>>> model = FullyConnectedNet([20], input_dim=4, num_classes=3, dtype=np.float64)
>>> loss, grads = model.loss(np.zeros((5, 2, 2)), np.array([0, 1, 2, 0, 1]))
>>> round(loss, 3), sorted(grads)
(1.099, ['W1', 'W2', 'b1', 'b2'])
"""

from fcnet.compat import _install
from fcnet.compat.cs231n import _year
from fcnet.compat.cs231n.classifiers.fc_net import FullyConnectedNet, TwoLayerNet
from fcnet.compat.cs231n.classifiers.k_nearest_neighbor import KNearestNeighbor
from fcnet.compat.cs231n.classifiers.linear_classifier import LinearClassifier, LinearSVM, Softmax
from fcnet.compat.cs231n.classifiers.linear_svm import svm_loss_naive, svm_loss_vectorized
from fcnet.compat.cs231n.classifiers.softmax import softmax_loss_naive, softmax_loss_vectorized
from fcnet.compat.cs231n.data_utils import get_CIFAR10_data, load_CIFAR10
from fcnet.compat.cs231n.features import color_histogram_hsv, extract_features, hog_feature
from fcnet.compat.cs231n.gradient_check import (
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    grad_check_sparse,
    rel_error,
)
from fcnet.compat.cs231n.layer_utils import (
    affine_bn_relu_backward,
    affine_bn_relu_forward,
    affine_relu_backward,
    affine_relu_forward,
)
from fcnet.compat.cs231n.layers import (
    affine_backward,
    affine_forward,
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    dropout_backward,
    dropout_forward,
    layernorm_backward,
    layernorm_forward,
    relu_backward,
    relu_forward,
    softmax_loss,
    svm_loss,
)
from fcnet.compat.cs231n.optim import adam, rmsprop, sgd, sgd_momentum
from fcnet.compat.cs231n.solver import Solver
from fcnet.compat.cs231n.vis_utils import visualize_grid

__all__ = [
    "FullyConnectedNet",
    "KNearestNeighbor",
    "LinearClassifier",
    "LinearSVM",
    "Softmax",
    "Solver",
    "TwoLayerNet",
    "adam",
    "affine_backward",
    "affine_bn_relu_backward",
    "affine_bn_relu_forward",
    "affine_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "color_histogram_hsv",
    "dropout_backward",
    "dropout_forward",
    "eval_numerical_gradient",
    "eval_numerical_gradient_array",
    "extract_features",
    "get_CIFAR10_data",
    "grad_check_sparse",
    "hog_feature",
    "install",
    "layernorm_backward",
    "layernorm_forward",
    "load_CIFAR10",
    "rel_error",
    "relu_backward",
    "relu_forward",
    "rmsprop",
    "sgd",
    "sgd_momentum",
    "softmax_loss",
    "softmax_loss_naive",
    "softmax_loss_vectorized",
    "svm_loss",
    "svm_loss_naive",
    "svm_loss_vectorized",
    "visualize_grid",
]


def install(year: int | None = None) -> None:
    """Make `import cs231n`, and its submodules, find this package.

    Importing one of the course's modules that are not here, such as cs231n.fast_layers, then says so.

    Args:
        year: of the course, 2016 to 2026, for what its calls do not tell: in 2016 and 2017 dropout's p is the share of
            units dropped, not the probability to keep one, and in 2016 the L2 term of assignment 1's classifiers has a
            half. None: as from 2018 on. It counts from this call on, in this package under either name.

    Raises:
        ImportError: another package called cs231n has been imported already.
        TypeError, ValueError: another year.
    """
    _year.set_year(year)
    _install.install({"cs231n": __name__})

"""Stanford CS231n, assignments 1 and 2 (2020 and later): the course's names and behaviour over fcnet's code.

No formula of its own: layers call `fcnet.functional`, rules `fcnet.optim.rules`, gradient checks
`fcnet.numerical`. Names can be imported from here or, as in the course, from the submodules. After `install()` the
course's notebooks run unmodified: `from cs231n.classifiers.fc_net import *` finds this package.

>>> import numpy as np
>>> from fcnet.compat.cs231n import FullyConnectedNet
>>> model = FullyConnectedNet([20], input_dim=4, num_classes=3, dtype=np.float64)
>>> loss, grads = model.loss(np.zeros((5, 2, 2)), np.array([0, 1, 2, 0, 1]))
>>> round(loss, 3), sorted(grads)
(1.099, ['W1', 'W2', 'b1', 'b2'])
"""

import pkgutil
import sys
from importlib import import_module

from fcnet.compat.cs231n.classifiers.fc_net import FullyConnectedNet, TwoLayerNet
from fcnet.compat.cs231n.data_utils import get_CIFAR10_data, load_CIFAR10
from fcnet.compat.cs231n.gradient_check import (
    eval_numerical_gradient,
    eval_numerical_gradient_array,
    grad_check_sparse,
    rel_error,
)
from fcnet.compat.cs231n.layer_utils import affine_relu_backward, affine_relu_forward
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
    "Solver",
    "TwoLayerNet",
    "adam",
    "affine_backward",
    "affine_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "dropout_backward",
    "dropout_forward",
    "eval_numerical_gradient",
    "eval_numerical_gradient_array",
    "get_CIFAR10_data",
    "grad_check_sparse",
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
    "svm_loss",
    "visualize_grid",
]


def install() -> None:
    """Make `import cs231n`, and its submodules, find this package.

    Raises:
        ImportError: another package called cs231n has been imported already.
    """
    this = sys.modules[__name__]
    other = sys.modules.get("cs231n", this)
    if other is not this:
        where = getattr(other, "__file__", None) or list(getattr(other, "__path__", ["?"]))
        raise ImportError(
            f"install: expected no other cs231n to be imported, got the one in {where}; "
            "start Python again and call install() before importing cs231n"
        )
    sys.modules["cs231n"] = this
    for module in pkgutil.walk_packages(this.__path__, f"{__name__}."):
        sys.modules[module.name.replace(__name__, "cs231n", 1)] = import_module(module.name)

"""Saito, "Deep Learning from Scratch" (O'Reilly), chapters 4 to 6: the book's names and conventions over fcnet's code.

No formula of its own: layers call `fcnet.functional`, optimizers `fcnet.optim.rules`. Names can be imported from here
or, as from the book's folder `common`, from the submodules.

What is the book's, and differs from fcnet's own: a dropout number is the share *dropped*, and dropout is plain (nothing
scaled while training, everything when testing); 1e-7 in the optimizers, which Adam adds to sqrt(v) itself, before v is
corrected for its bias; 10e-7, that is 1e-6, in batch norm; mini-batches drawn with replacement.

>>> import numpy as np
>>> from fcnet.compat.dlfs import SGD, MultiLayerNet
>>> network = MultiLayerNet(input_size=4, hidden_size_list=[20], output_size=3)
>>> x, t = np.ones((5, 1, 2, 2)), np.array([0, 1, 2, 0, 1])
>>> before = network.loss(x, t)
>>> SGD(lr=0.1).update(network.params, network.gradient(x, t))
>>> bool(network.loss(x, t) < before)
True
"""

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
from fcnet.compat.dlfs.util import smooth_curve

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
    "smooth_curve",
]

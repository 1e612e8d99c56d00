"""The formulas of fcnet, each in one place: pure functions `NAME_forward -> (out, cache)`, `NAME_backward -> grads`.

They take arrays of one device, (..., N, D) with features last, and return arrays of that device. Keyword outputs named
as the results (`out=`, `dx=`, `dw=`) are filled if given; nothing else that the caller owns is modified.
"""

from fcnet.functional.activation import ACTIVATIONS, relu_backward, relu_forward
from fcnet.functional.affine import (
    add_bias,
    affine_backward,
    affine_forward,
    bias_gradient,
    matmul,
    matmul_backward,
)
from fcnet.functional.batch import advance, batch_rows, cast, gather, preprocess, record_step
from fcnet.functional.dropout import dropout_backward, dropout_forward, dropout_mask
from fcnet.functional.loss import LOSSES, l2_penalty, one_hot, softmax, softmax_loss, svm_loss
from fcnet.functional.norm import (
    NormCache,
    batchnorm_backward,
    batchnorm_backward_stepwise,
    batchnorm_forward,
    batchnorm_inference,
    layernorm_backward,
    layernorm_forward,
)
from fcnet.functional.units import (
    batchnorm_activation_dropout_backward,
    batchnorm_activation_dropout_forward,
    bias_activation_dropout_backward,
    bias_activation_dropout_forward,
    layernorm_activation_dropout_backward,
    layernorm_activation_dropout_forward,
)

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "NormCache",
    "add_bias",
    "advance",
    "affine_backward",
    "affine_forward",
    "batch_rows",
    "batchnorm_activation_dropout_backward",
    "batchnorm_activation_dropout_forward",
    "batchnorm_backward",
    "batchnorm_backward_stepwise",
    "batchnorm_forward",
    "batchnorm_inference",
    "bias_activation_dropout_backward",
    "bias_activation_dropout_forward",
    "bias_gradient",
    "cast",
    "dropout_backward",
    "dropout_forward",
    "dropout_mask",
    "gather",
    "l2_penalty",
    "layernorm_activation_dropout_backward",
    "layernorm_activation_dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "matmul",
    "matmul_backward",
    "one_hot",
    "preprocess",
    "record_step",
    "relu_backward",
    "relu_forward",
    "softmax",
    "softmax_loss",
    "svm_loss",
]

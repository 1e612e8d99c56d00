"""The formulas of fcnet, each in one place: pure functions `NAME_forward -> (out, cache)`, `NAME_backward -> grads`.

They take arrays of one device, (..., N, D) with features last, and return arrays of that device. Keyword outputs named
as the results (`out=`, `dx=`, `dw=`) are filled if given; nothing else that the caller owns is modified.

These are the references. Kernels that replace them on a device stand in files of the same names in `backends/cpu` and
`backends/cuda`; docs/kernels.md lists, function by function, its kernels, its test and its speed.
"""

from fcnet.functional import activation, loss
from fcnet.functional.activation import *
from fcnet.functional.affine import (
    add_bias,
    affine_backward,
    affine_forward,
    bias_gradient,
    matmul,
    matmul_backward,
)
from fcnet.functional.batch import advance, cast, gather, next_batch, preprocess, record_step, shuffle, smooth_clip
from fcnet.functional.dropout import (
    dropout_backward,
    dropout_forward,
    dropout_mask,
    plain_dropout_forward,
    plain_dropout_inference,
    plain_dropout_mask,
)
from fcnet.functional.hidden import (
    batchnorm_activation_dropout_backward,
    batchnorm_activation_dropout_forward,
    bias_activation_dropout_backward,
    bias_activation_dropout_forward,
    layernorm_activation_dropout_backward,
    layernorm_activation_dropout_forward,
)
from fcnet.functional.loss import *
from fcnet.functional.metric import Metric, right_classes
from fcnet.functional.norm import (
    NormCache,
    batchnorm_backward,
    batchnorm_backward_stepwise,
    batchnorm_forward,
    batchnorm_inference,
    layernorm_backward,
    layernorm_forward,
)
from fcnet.functional.penalty import l1_penalty, l2_penalty

__all__ = [
    "Metric",
    "NormCache",
    "add_bias",
    "advance",
    "affine_backward",
    "affine_forward",
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
    "l1_penalty",
    "l2_penalty",
    "layernorm_activation_dropout_backward",
    "layernorm_activation_dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "matmul",
    "matmul_backward",
    "next_batch",
    "plain_dropout_forward",
    "plain_dropout_inference",
    "plain_dropout_mask",
    "preprocess",
    "record_step",
    "right_classes",
    "shuffle",
    "smooth_clip",
]
__all__ += activation.__all__
__all__ += loss.__all__

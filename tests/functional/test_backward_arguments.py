"""What backward functions refuse: gradients of another shape or dtype, caches of another function."""

from __future__ import annotations

import numpy as np
import pytest

from fcnet import functional as F

X, W, B = np.ones((6, 4)), np.ones((4, 5)), np.ones(5)
ROW = np.ones(4)
CASES = {
    "affine": (F.affine_backward, F.affine_forward(X, W, B)[1], (6, 5)),
    **{
        name: (getattr(F, f"{name}_backward"), getattr(F, f"{name}_forward")(X)[1], (6, 4))
        for name, kind in F.ACTIVATIONS.items()
        if kind.pieces == 1
    },
    "dropout": (F.dropout_backward, F.dropout_forward(X, X)[1], (6, 4)),
    "batchnorm": (F.batchnorm_backward, F.batchnorm_forward(X, ROW, ROW)[1], (6, 4)),
    "stepwise": (F.batchnorm_backward_stepwise, F.batchnorm_forward(X, ROW, ROW)[1], (6, 4)),
    "layernorm": (F.layernorm_backward, F.layernorm_forward(X, ROW, ROW)[1], (6, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_that_do_not_fit(name):
    backward, cache, shape = CASES[name]
    backward(np.ones(shape), cache)
    for wrong in (np.ones((1, shape[1])), np.ones(shape[1]), np.ones((shape[0] + 1, shape[1])), np.ones((2, *shape))):
        with pytest.raises(ValueError, match="dout: expected"):
            backward(wrong, cache)
    for wrong in (np.ones(shape, "float32"), np.ones(shape, int), np.ones(shape, object), None, 1.0):
        with pytest.raises(TypeError, match="dout"):
            backward(wrong, cache)


@pytest.mark.parametrize("name", ["affine", "batchnorm", "layernorm", "stepwise", "gelu", "silu"])
def test_caches_that_do_not_fit(name):
    backward, _, shape = CASES[name]
    for wrong in (None, (1, 2), X):
        with pytest.raises(TypeError, match="cache: expected the one that"):
            backward(np.ones(shape), wrong)


@pytest.mark.parametrize("y", [-1, 4, 255, 2**63])
@pytest.mark.parametrize("loss", [F.softmax_loss, F.svm_loss])
def test_labels_out_of_range(loss, y):
    labels = np.array([0, 1, 2, 3, 0, y], dtype=np.uint64 if y > 255 else int)
    with pytest.raises(ValueError, match=rf"y: expected labels 0 to 3, got {y}"):
        loss(X, labels)

"""What a network's arguments may be."""

from __future__ import annotations

import numpy as np
import pytest

import fcnet
from fcnet.nn.arguments import precision_of
from tests.small import blobs, net


@pytest.mark.parametrize(("precision", "dtype"), [(None, "float32"), ("float32", "float32"), ("float64", "float64")])
def test_the_dtype_s_own_precision_is_none(precision, dtype, backend):
    assert precision_of(precision, np.dtype(dtype), backend) is None
    assert net(blobs(), backend, precision=precision, dtype=dtype).precision is None


@pytest.mark.parametrize(
    ("precision", "dtype", "message"),
    [
        ("tf32", "float64", "precision and dtype: expected dtype 'float32' with precision='tf32', got 'float64'"),
        ("float64", "float32", "precision and dtype: expected dtype 'float64' with precision='float64', got 'float32'"),
        ("fp16", "float32", "precision: expected one of float32, float64, tf32, bf16; got 'fp16'"),
        (16, "float32", "precision: expected"),
        ("bf16", "float32", "precision: expected 'float32' on cpu, got 'bf16', which takes a CUDA GPU"),
    ],
)
def test_what_is_refused(precision, dtype, message):
    with pytest.raises((ValueError, TypeError), match=message):
        net(blobs(), precision=precision, dtype=dtype)


def test_a_network_says_what_it_takes_when_it_is_asked_for_an_odd_width():
    with pytest.raises(TypeError, match="hidden_dims: expected a list of widths"):
        fcnet.FullyConnectedNet("100", 6, 3)

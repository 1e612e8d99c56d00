"""The flat buffer: its layout, its views, what assignment does."""

import copy
import math
import pickle

import numpy as np
import pytest

from fcnet.nn.params import ALIGNMENT, ParamBuffer
from tests.guard import shares_memory

# Vectors between matrices, sizes that fill no line, a stack of matrices, one number.
SHAPES = {"b1": (3,), "W1": (5, 3), "gamma": (65,), "W2": (3, 5, 2), "b2": (1,), "W3": (1, 1)}
MATRICES = ("W1", "W2", "W3")


@pytest.fixture
def buffer(backend, dtype):
    return ParamBuffer(backend, SHAPES, dtype)


def filled(buffer):
    """Return the buffer with other values in every tensor, none zero."""
    for number, (name, shape) in enumerate(SHAPES.items(), 1):
        buffer[name] = np.full(shape, float(number))
    return buffer


def starts(buffer, host):
    """Where each tensor starts in `flat`, found by writing to it."""
    found = {}
    for name in SHAPES:
        buffer.flat[...] = 0
        buffer[name][...] = 1
        places = np.flatnonzero(host(buffer.flat))
        assert places.size == math.prod(SHAPES[name])
        assert places[-1] - places[0] + 1 == places.size, f"{name} is not one block"
        found[name] = int(places[0])
    return found


def test_matrices_come_first_then_vectors_each_in_the_order_given(buffer, host):
    places = starts(buffer, host)
    assert sorted(places, key=places.get) == ["W1", "W2", "W3", "b1", "gamma", "b2"]


def test_every_tensor_starts_on_a_line(buffer, host):
    for name, place in starts(buffer, host).items():
        assert place * buffer.dtype.itemsize % ALIGNMENT == 0, name


def test_spans_cover_the_memory_without_gaps(buffer, host):
    spans, places = buffer.spans(), starts(buffer, host)
    assert list(spans) == ["W1", "W2", "W3", "b1", "gamma", "b2"]
    ends = [0]
    for name, (start, stop) in spans.items():
        assert (start, start) == (places[name], ends[-1])
        assert stop >= start + math.prod(SHAPES[name])
        ends.append(stop)
    assert ends[-1] == buffer.flat.size
    assert spans["W3"][1] == buffer.matrices.size


def test_memory_itself_is_aligned(dtype):
    from fcnet import backends

    for _ in range(8):
        buffer = ParamBuffer(backends.get_backend("cpu"), SHAPES, dtype)
        assert buffer.flat.ctypes.data % 256 == 0
        assert all(buffer[name].ctypes.data % 256 == 0 for name in SHAPES)


def test_matrices_are_one_slice(buffer, host):
    filled(buffer)
    assert shares_memory(buffer.matrices, buffer.flat)
    buffer.matrices[...] = 0
    for name in SHAPES:
        assert host(buffer[name]).any() == (name not in MATRICES), name


def test_everything_is_zero_at_first_and_padding_stays_so(buffer, host):
    assert not host(buffer.flat).any()
    filled(buffer)
    assert buffer.flat.size > sum(math.prod(shape) for shape in SHAPES.values())
    for name in SHAPES:
        buffer[name][...] = 0
    assert not host(buffer.flat).any()


def test_tensors_are_views_with_their_shape_and_dtype(buffer, host, dtype):
    for name, shape in SHAPES.items():
        assert buffer[name].shape == shape
        assert buffer[name].dtype == buffer.dtype == dtype
        assert buffer[name].flags.c_contiguous
        assert shares_memory(buffer[name], buffer.flat)
        assert buffer[name] is buffer[name]
    assert (buffer.flat.ndim, buffer.flat.flags.c_contiguous) == (1, True)


def test_it_is_a_mapping_in_the_order_given(buffer):
    assert list(buffer) == list(SHAPES)
    assert len(buffer) == len(SHAPES)
    assert "W1" in buffer
    assert "W9" not in buffer
    assert dict(buffer)["W1"] is buffer["W1"]
    assert "ParamBuffer 115 values" in repr(buffer)


def test_assigning_copies(buffer, host, device, dtype):
    view, values = buffer["W1"], np.arange(15.0).reshape(5, 3)
    buffer["W1"] = values
    assert buffer["W1"] is view
    values[...] = -1
    np.testing.assert_array_equal(host(view), np.arange(15.0).reshape(5, 3))
    source = device(np.ones((5, 3)), dtype)
    buffer["W1"] = source
    assert not shares_memory(source, view)
    assert (host(view) == 1).all()
    buffer["W1"] -= 0.25  # what course code writes
    assert buffer["W1"] is view
    assert (host(view) == 0.75).all()
    buffer["b1"] = [1, 2, 3]
    np.testing.assert_array_equal(host(buffer["b1"]), [1, 2, 3])
    buffer.update({"b2": np.ones(1)})
    assert host(buffer["b2"]) == 1


@pytest.mark.parametrize("shape", [(3, 5), (15,), (3,), (1, 3), (5, 1), ()], ids=str)
def test_assigning_another_shape_is_refused(shape, buffer, host):
    filled(buffer)
    with pytest.raises(ValueError) as caught:
        buffer["W1"] = np.ones(shape)
    assert str(caught.value) == f"params['W1']: expected shape (5, 3), got {shape}"
    assert (host(buffer["W1"]) == 2).all()


def test_names_are_fixed(buffer):
    with pytest.raises(KeyError, match="no parameter 'W9'; there are b1, W1, gamma"):
        buffer["W9"] = np.ones(1)
    with pytest.raises(KeyError):
        buffer["W9"]
    with pytest.raises(TypeError, match=r"params\['W1'\] cannot be deleted"):
        del buffer["W1"]
    for remove in (buffer.clear, buffer.popitem, lambda: buffer.pop("W1")):
        with pytest.raises(TypeError, match="cannot be deleted"):
            remove()
    assert list(buffer) == list(SHAPES)


def test_like_is_zeros_of_the_same_layout(buffer, host):
    places = starts(filled(buffer), host)
    other = filled(buffer).like()
    assert not host(other.flat).any()
    assert (other.shapes, other.dtype, other.flat.size) == (buffer.shapes, buffer.dtype, buffer.flat.size)
    assert other.backend is buffer.backend
    assert not shares_memory(other.flat, buffer.flat)
    assert starts(other, host) == places


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_copies_keep_their_views_attached(how, buffer, host):
    filled(buffer)
    made = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda buffer: pickle.loads(pickle.dumps(buffer)),
    }[how](buffer)
    np.testing.assert_array_equal(host(made.flat), host(buffer.flat))
    assert not shares_memory(made.flat, buffer.flat)
    assert made.backend is buffer.backend
    assert list(made) == list(buffer)
    made["W1"] = np.full((5, 3), 9.0)
    assert (host(made.flat) == 9).sum() == 15
    assert (host(buffer["W1"]) == 2).all()


def test_a_buffer_may_be_empty(backend):
    buffer = ParamBuffer(backend, {}, "float32")
    assert (buffer.flat.size, buffer.matrices.size, len(buffer)) == (0, 0, 0)


def test_only_vectors_or_only_matrices(backend, host):
    vectors = ParamBuffer(backend, {"b": (3,)}, "float32")
    assert vectors.matrices.size == 0
    matrices = ParamBuffer(backend, {"W": (3, 3)}, "float32")
    assert matrices.matrices.size == matrices.flat.size

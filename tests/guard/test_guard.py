"""The guard itself: it refuses and counts what it says, and its list is CuPy's."""

import copy
import operator
import pickle

import numpy as np
import pytest

from fcnet.backends import backend_of, get_backend
from tests.guard import UFUNCS, GuardArray, HiddenWait, shares_memory

HOST = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def a(guard):
    """Return a device array (2, 3), float64; the log is empty."""
    array = guard.asarray(HOST)
    guard.log.clear()
    return array


def test_it_is_a_registered_device(guard, a):
    assert get_backend("guard") is guard
    assert backend_of(a, a) is guard
    assert pickle.loads(pickle.dumps(guard)) is guard
    assert guard.memory().total > 0
    assert "guard" in guard.describe()
    with pytest.raises(TypeError, match="arrays of two devices"):
        backend_of(a, HOST)


MIXTURES = {
    "device + host": lambda xp, a: a + HOST,
    "host + device": lambda xp, a: HOST + a,
    "device * numpy scalar": lambda xp, a: a * np.float64(2),
    "numpy scalar * device": lambda xp, a: np.float64(2) * a,
    "device == host": lambda xp, a: a == HOST,
    "device in place": lambda xp, a: operator.iadd(a, HOST),
    "host in place": lambda xp, a: operator.iadd(HOST.copy(), a),
    "device + list": lambda xp, a: a + [1.0, 2.0, 3.0],  # noqa: RUF005
    "power": lambda xp, a: a**HOST,
    "xp function of host arrays": lambda xp, a: xp.add(HOST, HOST),
    "xp function of a mixture": lambda xp, a: xp.add(a, HOST),
    "xp function of numbers": lambda xp, a: xp.add(1.0, 2.0),
    "xp reduction of a host array": lambda xp, a: xp.sum(HOST),
    "xp.dot": lambda xp, a: xp.dot(a[0], HOST[0]),
    "out= host": lambda xp, a: xp.add(a, a, out=HOST.copy()),
    "reduction out= host": lambda xp, a: xp.sum(a, axis=0, out=np.empty(3)),
    "setitem from host": lambda xp, a: a.__setitem__(0, HOST[0]),
    "setitem from list": lambda xp, a: a.__setitem__(0, [1.0, 2.0, 3.0]),
    "setitem from numpy scalar": lambda xp, a: a.__setitem__(0, np.float64(1)),
    "setitem into host": lambda xp, a: HOST.copy().__setitem__(..., a),
    "index by a host array": lambda xp, a: a[np.array([0, 1])],
    "index by a list": lambda xp, a: a[[0, 1]],
    "index by a host mask": lambda xp, a: a[HOST > 2],
    "index of host by device": lambda xp, a: HOST[xp.arange(2)],
    "setitem index by a list": lambda xp, a: a.__setitem__([0, 1], 0.0),
    "take by a host array": lambda xp, a: xp.take(a, np.array([0]), axis=0),
    "take by a list": lambda xp, a: xp.take(a, [0], axis=0),
    "take out= host": lambda xp, a: xp.take(a, xp.arange(1), axis=0, out=np.empty((1, 3))),
    "concatenate": lambda xp, a: xp.concatenate([a, HOST]),
    "asarray of a list of arrays": lambda xp, a: xp.asarray([a, a]),
    "full by a host array": lambda xp, a: xp.full((2, 3), HOST),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_mixing_with_the_host_is_refused(mixture, guard, a):
    with pytest.raises((TypeError, IndexError)):
        MIXTURES[mixture](guard.xp, a)
    assert guard.log.waits == []


CONVERSIONS = {
    "np.asarray": np.asarray,
    "np.array": np.array,
    "np.array of a list": lambda a: np.array([a, a]),
    "np.add": lambda a: np.add(a, 1),
    "np.add of host and device": lambda a: np.add(HOST, a),
    "np.add out=": lambda a: np.add(HOST, 1, out=a),
    "np.sum": np.sum,
    "np.exp": np.exp,
    "np.concatenate": lambda a: np.concatenate([a, a]),
    "np.copyto": lambda a: np.copyto(HOST.copy(), a),
    "np.matmul": lambda a: HOST.T @ a,
    "memoryview": memoryview,
    "bytes": bytes,
    "np.from_dlpack": np.from_dlpack,
    "list": list,
    "for": lambda a: [row for row in a],  # noqa: C416
    "in": lambda a: 1.0 in a,
    "np.frombuffer": np.frombuffer,
    "__array_interface__": lambda a: a.__array_interface__,
    "__array_struct__": lambda a: a.__array_struct__,
    "__index__": lambda a: operator.index(a[0, 0]),
    "range": lambda a: range(a[0, 0]),
    "hash": hash,
    "private data": lambda a: a._data,
    "np.random": lambda a: np.random.default_rng(0).permutation(a),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_implicit_conversion_is_refused(conversion, guard, a):
    with pytest.raises((TypeError, BufferError, AttributeError)):
        CONVERSIONS[conversion](a)
    assert guard.log.waits == []


WAITS = {
    "float": lambda g, a: float(a[0, 1]),
    "int": lambda g, a: int(a[0, 1]),
    "complex": lambda g, a: complex(a[0, 1]),
    "bool": lambda g, a: bool(a[0, 1]),
    "if": lambda g, a: 1 if a[0, 1] > 0 else 0,
    "item": lambda g, a: a[0, 1].item(),
    "tolist": lambda g, a: a.tolist(),
    "format": lambda g, a: f"{a[0, 1]:.3f}",
    "percent": lambda g, a: "%.3f" % a[0, 1],  # noqa: UP031
    "boolean mask": lambda g, a: a[a > 2],
    "setitem by a boolean mask": lambda g, a: a.__setitem__(a > 2, 0.0),
    "to_numpy": lambda g, a: g.to_numpy(a),
    "synchronize": lambda g, a: g.synchronize(),
    "pickle": lambda g, a: pickle.dumps(a),
    "max": lambda g, a: max(a[0, 0], a[0, 1]),
}


@pytest.mark.parametrize("wait", WAITS)
def test_waits_are_counted_and_refused_in_strict_mode(wait, guard, a):
    WAITS[wait](guard, a)
    assert len(guard.log.waits) == 1
    with guard.no_waits(), pytest.raises(HiddenWait):
        WAITS[wait](guard, a)
    WAITS[wait](guard, a)  # allowed again


def test_what_waits_gives_the_right_answer(guard, a):
    assert float(a[1, 2]) == a[1, 2].item() == 5.0
    assert int(a[1, 2]) == 5
    assert not bool(a[0, 0])
    assert a.tolist() == HOST.tolist()
    assert f"{a[1, 2]:.1f}" == "5.0"
    np.testing.assert_array_equal(guard.to_numpy(a[a > 2]), [3, 4, 5])
    np.testing.assert_array_equal(guard.to_numpy(pickle.loads(pickle.dumps(a))), HOST)
    with pytest.raises((TypeError, ValueError)):
        float(a)


def test_looking_at_metadata_waits_for_nothing(guard, a):
    with guard.no_waits():
        assert (a.shape, a.ndim, a.size, len(a)) == ((2, 3), 2, 6, 2)
        assert (a.dtype, a.itemsize, a.nbytes, a.strides) == (np.float64, 8, 48, (24, 8))
        assert a.flags.c_contiguous
        assert repr(a) == str(a) == f"{a}" == "<GuardArray float64 (2, 3)>"
    with pytest.raises(AttributeError, match=r"GuardArray\.ravel is not in the guarded list"):
        a.ravel()


def test_results_are_device_arrays_never_scalars(guard, a):
    xp = guard.xp
    results = [
        xp.sum(a),
        xp.mean(a),
        xp.max(a),
        xp.argmax(a),
        xp.dot(a[0], a[0]),
        xp.add(a[0, 0], 1),
        a[0, 0] + 1,
        -a[0, 0],
        a[0, 0] * a[0, 1],
        a[0, 0] == 0,
        a[1, 2],
        xp.take(a[0], xp.zeros((), "int64")),
    ]
    for result in results:
        assert type(result) is GuardArray
        assert result.shape == ()


def test_promotion_is_numpy_2s(guard):
    single, double = guard.xp.ones(3, "float32"), guard.xp.ones((), "float64")
    assert (single * double).dtype == np.float64  # a device scalar is no weak scalar
    assert (single * 2.0).dtype == (2 * single).dtype == np.float32
    assert guard.xp.multiply(single, double).dtype == np.float64
    with pytest.raises(TypeError):
        guard.xp.add(guard.xp.ones(3, "int64"), 0.5, out=guard.xp.ones(3, "int64"))  # same-kind casting


def test_integers_out_of_range_are_refused(guard):
    bits = guard.xp.zeros(3, "uint16")
    assert guard.xp.less_equal(bits, 65535).dtype == bool
    for function in (lambda: guard.xp.less_equal(bits, 65536), lambda: bits > 65536, lambda: bits == -1):
        with pytest.raises(OverflowError, match="does not fit uint16"):
            function()


VIEWS = [
    lambda a: a[0],
    lambda a: a[:, 1:],
    lambda a: a[..., None],
    lambda a: a[1, 2],
    lambda a: a.T,
    lambda a: a.swapaxes(0, 1),
    lambda a: a.reshape(3, 2),
    lambda a: a.reshape((6,)),
    lambda a: a.astype("float64", copy=False),
]
COPIES = [
    lambda a: a.copy(),
    copy.copy,
    copy.deepcopy,
    lambda a: a.T.reshape(6),
    lambda a: a.astype("float64"),
]


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_views_share_memory_and_allocate_nothing(number, guard, a):
    view = VIEWS[number](a)
    assert shares_memory(view, a)
    assert guard.log.allocations == []
    view[...] = -1.0
    assert -1.0 in guard.to_numpy(a)


@pytest.mark.parametrize("number", range(len(COPIES)))
def test_copies_do_not_and_are_counted(number, guard, a):
    copied = COPIES[number](a)
    assert not shares_memory(copied, a)
    assert [event.nbytes for event in guard.log.allocations] == [48]
    copied[...] = -1.0
    np.testing.assert_array_equal(guard.to_numpy(a), HOST)


def test_setitem_from_device_and_python_numbers(guard, a):
    a[0] = 1.0
    a[:, 1] = 2
    a[1:] += 1.0
    a[1] = a[0]
    a[guard.xp.arange(1), 2] = guard.xp.full((), 9.0)
    np.testing.assert_array_equal(guard.to_numpy(a), [[1, 2, 9], [1, 2, 1]])
    assert guard.log.uploads == []


def test_index_arrays_of_the_device_are_fine(guard, a):
    rows = a[guard.xp.arange(2)]
    assert guard.log.waits == []
    assert not shares_memory(rows, a)
    with pytest.raises(IndexError, match="index arrays are integers"):
        a[guard.xp.ones(2)]


def test_uploads_are_counted(guard, a):
    guard.asarray(HOST)
    guard.asarray(0.5)
    guard.upload(HOST, a)
    a[guard.xp.arange(1)] = 1.0  # CuPy makes an array of the number first
    assert [event.nbytes for event in guard.log.uploads] == [48, 8, 48, 8]
    guard.log.clear()
    guard.asarray(a)
    guard.asarray(a, "float32")
    a[0] = 1.0
    assert guard.log.uploads == []


def test_allocations_are_counted(guard, a):
    xp = guard.xp
    with guard.recording() as log:
        xp.empty((4,)), xp.zeros(5), xp.ones(6), xp.full(7, 1.0), xp.arange(8)
        assert [event.nbytes for event in log.allocations] == [32, 40, 48, 56, 64]
    with guard.recording() as log:
        b = xp.exp(a)
        a + b, xp.sum(a, axis=0), a > 0, guard.gemm(a, a.T), xp.take(a, xp.zeros(1, "int64"), axis=0)
        assert [event.nbytes for event in log.allocations] == [48, 48, 24, 6, 32, 8, 24]
    with guard.recording() as log:
        row, product = xp.empty(3), xp.empty((2, 2))
        log.clear()
        xp.exp(a, out=b)
        xp.multiply(a, b, out=b)
        xp.sum(a, axis=0, out=row)
        guard.gemm(a, b.T, out=product)
        b += a
        assert log.allocations == []


def test_hidden_copies_of_overlapping_inputs_are_counted(guard, a):
    """CuPy copies an input that may overlap `out` unless both are the same object; so two views of one array."""
    with guard.recording() as log:
        guard.xp.add(a, 1.0, out=a)
        assert log.allocations == []
        guard.xp.add(a[0], 1.0, out=a[0])
        assert [event.nbytes for event in log.allocations] == [24]
        assert "hidden copy" in log.allocations[0].what


def test_empty_is_not_zero(guard):
    assert np.isnan(guard.to_numpy(guard.xp.empty(3, "float32"))).all()
    assert (guard.to_numpy(guard.xp.empty(3, "int64")) == np.iinfo(np.int64).max).all()
    assert guard.to_numpy(guard.xp.empty(3, bool)).all()


def test_functions_off_the_list_are_refused(guard):
    for name in ("clip", "einsum", "argwhere", "nonzero", "matmul", "random", "copyto", "isfinite"):
        with pytest.raises(AttributeError, match=f"xp.{name} is not in the guarded list: add it if CuPy has it"):
            getattr(guard.xp, name)


REFUSED_KEYWORDS = [
    lambda xp, a: xp.take(a, xp.zeros(1, "int64"), axis=0, mode="clip"),
    lambda xp, a: xp.mean(a, where=a),
    lambda xp, a: xp.sum(a, initial=0.0),
    lambda xp, a: xp.max(a, initial=0.0),
    lambda xp, a: xp.max(a, dtype="float32"),
    lambda xp, a: xp.add(a, a, where=a),
    lambda xp, a: xp.add(a, a, a),
    lambda xp, a: xp.exp(a, casting="unsafe"),
    lambda xp, a: xp.arange(3, like=a),
    lambda xp, a: xp.arange(xp.ones(())),
]


@pytest.mark.parametrize("number", range(len(REFUSED_KEYWORDS)))
def test_keywords_off_the_list_are_refused(number, guard, a):
    with pytest.raises(TypeError):
        REFUSED_KEYWORDS[number](guard.xp, a)


def test_take_wants_an_out_of_the_same_kind(guard, a):
    xp, rows = guard.xp, guard.xp.arange(1)
    with pytest.raises(TypeError):
        xp.take(a, rows, axis=0, out=xp.empty((1, 3), "float32"))
    with pytest.raises(ValueError, match="mismatch"):
        xp.take(a, rows, axis=0, out=xp.empty((3,)))
    with pytest.raises(IndexError):
        xp.take(a, xp.full(1, 9, "int64"), axis=0)  # CuPy would wrap around
    with pytest.raises(TypeError, match="expected integers"):
        xp.take(a, xp.ones(1), axis=0)


def test_functions_give_numpys_values(guard, a):
    xp, read = guard.xp, guard.to_numpy
    positive = a + 1
    for name in UFUNCS:
        arguments = (positive, a) if getattr(np, name).nin == 2 and name != "divide" else (positive,)
        arguments = (a, positive) if name == "divide" else arguments
        expected = getattr(np, name)(*(read(value) for value in arguments))
        np.testing.assert_array_equal(read(getattr(xp, name)(*arguments)), expected)
    for name in ("sum", "mean", "max", "min", "argmax", "argmin"):
        np.testing.assert_array_equal(read(getattr(xp, name)(a, axis=1)), getattr(np, name)(HOST, axis=1))
        kept = read(getattr(xp, name)(a, axis=-1, keepdims=True))
        np.testing.assert_array_equal(kept, getattr(np, name)(HOST, axis=-1, keepdims=True))
    np.testing.assert_array_equal(read(xp.concatenate([a, a], 1)), np.concatenate([HOST, HOST], 1))
    np.testing.assert_array_equal(read(xp.arange(2, 8, 3)), [2, 5])
    np.testing.assert_array_equal(read(1 - a), 1 - HOST)
    np.testing.assert_array_equal(read(2.0**a), 2.0**HOST)

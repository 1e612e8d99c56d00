"""CupyBackend: its own logic on a stand-in for CuPy, and all of it on a GPU."""

import gc
import sys

import numpy as np
import pytest

from fcnet.backends import Purpose, get_backend
from fcnet.backends.cupy_backend import PAIRS, CupyBackend
from tests.backends.cuda_fake import fake_cupy

CPU = get_backend("cpu")
KEY = (7, int(Purpose.DROPOUT))


@pytest.fixture
def cupy(monkeypatch):
    module = fake_cupy(count=2)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def backend(cupy):
    return CupyBackend(0)


def waits(cupy):
    return [entry for entry in cupy.fake.log if entry[0] in ("wait", "synchronize")]


def test_construction_touches_no_device(cupy):
    backend = CupyBackend(1)
    assert (backend.name, backend.xp, backend.block_size) == ("cuda:1", cupy, None)
    assert cupy.fake.log == []


def test_owns_arrays_of_its_device_only(cupy, backend):
    other = CupyBackend(1)
    mine, theirs = backend.asarray([1.0]), other.asarray([1.0])
    assert backend.owns(mine)
    assert not backend.owns(theirs)
    assert not backend.owns(np.ones(1))


def test_asarray_works_on_its_own_device(cupy):
    array = CupyBackend(1).asarray(np.arange(3), np.float32)
    assert (array.device.id, array.dtype) == (1, np.float32)
    assert cupy.fake.current == 0  # and leaves the current device as it was


def test_asarray_keeps_an_array_of_the_device(backend):
    array = backend.asarray(np.ones(3, np.float32))
    assert backend.asarray(array) is array


def test_asarray_from_another_gpu_copies_and_waits_on_both(cupy, backend):
    theirs = CupyBackend(1).asarray(np.arange(6.0).reshape(2, 3))
    mine = backend.asarray(theirs.T, np.float32)
    assert (mine.device.id, mine.dtype) == (0, np.float32)
    np.testing.assert_array_equal(backend.to_numpy(mine), np.arange(6.0).reshape(2, 3).T)
    assert waits(cupy) == [("synchronize", 1), ("synchronize", 0)]


def test_asarray_says_what_was_needed_and_what_is_free(cupy, backend):
    cupy.fake.limit = 1000
    message = (
        r"cuda:0 is out of memory: a float32 array of shape \(300, 1024\) needs 1\.2 MiB, "
        r"5\.0 GiB of 139\.0 GiB are free, this process holds 3\.0 MiB"
    )
    with pytest.raises(MemoryError, match=message) as caught:
        backend.asarray(np.ones((300, 1024)), np.float32)
    assert isinstance(caught.value.__cause__, cupy.cuda.memory.OutOfMemoryError)


def test_asarray_of_a_list_says_what_was_needed_too(cupy, backend):
    cupy.fake.limit = 1
    with pytest.raises(MemoryError, match=r"a float64 array of shape \(2, 1\) needs 16 bytes"):
        backend.asarray([[1.0], [2.0]])


def test_the_third_upload_waits_for_the_first_and_nothing_else(cupy, backend):
    out = [cupy.empty(5, np.float32) for _ in range(4)]
    host = np.empty(5, np.float32)
    for number in range(2):
        host[:] = number  # the same host array each time: it is free again when upload returns
        backend.upload(host, out[number])
    assert waits(cupy) == []
    assert len(cupy.fake.pending) == 2
    host[:] = 2
    backend.upload(host, out[2])
    assert waits(cupy) == [("wait",)]
    assert len(cupy.fake.pending) == 2  # the second copy was not waited for
    host[:] = 3
    backend.upload(host, out[3])
    backend.synchronize()
    assert [array.tolist() for array in out] == [[float(number)] * 5 for number in range(4)]


def test_uploads_of_two_sizes_do_not_wait_for_each_other(cupy, backend):
    for size in (5, 6, 5, 6):
        backend.upload(np.zeros(size), cupy.empty(size))
    assert waits(cupy) == []


def test_upload_does_not_wait_for_a_copy_that_is_done(cupy, backend):
    out = cupy.empty(5)
    for _ in range(3):
        backend.upload(np.zeros(5), out)
        backend.synchronize()
    assert ("wait",) not in cupy.fake.log


def test_large_uploads_go_in_pieces(cupy, backend, monkeypatch):
    monkeypatch.setattr("fcnet.backends.cupy_backend.PIECE", 24)
    host = np.arange(20.0).reshape(4, 5)
    out = cupy.empty((4, 5))
    backend.upload(host, out)
    backend.synchronize()
    np.testing.assert_array_equal(out, host)
    assert [entry[1] for entry in cupy.fake.log if entry[0] == "copy"] == [24] * 6 + [16]


def test_staging_buffers_of_few_sizes_are_kept_and_dropped_only_when_done(cupy, backend):
    out = [cupy.empty(size + 1) for size in range(PAIRS + 1)]
    for array in out[:PAIRS]:
        backend.upload(np.ones(array.shape), array)
    backend.upload(np.ones(1), out[0])  # the first size again
    assert waits(cupy) == []
    backend.upload(np.ones(out[-1].shape), out[-1])  # the ninth size takes the place of the second
    assert waits(cupy) == [("wait",)]
    assert list(backend._pairs) == [8 * size for size in (3, 4, 5, 6, 7, 8, 1, 9)]
    backend.synchronize()
    assert all((array == 1).all() for array in out)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_upload_casts_and_broadcasts_as_copyto(cupy, backend, dtype):
    host = np.array([1, 2, 3], np.uint8)
    out = cupy.empty((2, 3), dtype)
    backend.upload(host, out)
    backend.synchronize()
    assert out.tolist() == [[1, 2, 3], [1, 2, 3]]


def test_upload_refuses_what_copyto_refuses(cupy, backend):
    with pytest.raises(TypeError, match="same_kind"):
        backend.upload(np.ones(3), cupy.empty(3, np.int64))
    with pytest.raises(ValueError, match="broadcast"):
        backend.upload(np.ones(4), cupy.empty(3))


def test_upload_takes_strided_host_arrays_and_scalars(cupy, backend):
    out, scalar = cupy.empty((3, 2)), cupy.empty(())
    backend.upload(np.arange(6.0).reshape(2, 3).T, out)
    backend.upload(np.array(4.0), scalar)
    backend.upload(np.empty((0, 3)), cupy.empty((0, 3)))
    backend.synchronize()
    assert out.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert float(scalar) == 4


def test_upload_into_a_column_goes_through_a_device_array(cupy, backend):
    whole = cupy.empty((3, 2))
    whole[...] = 0
    # The stand-in copies late and has no stream order, so look only at what was sent where.
    backend.upload(np.arange(3.0), whole[:, 1])
    (to, _, nbytes) = cupy.fake.pending[0]
    assert nbytes == 24
    assert not whole.ctypes.data <= to.address < whole.ctypes.data + whole.nbytes


@pytest.mark.parametrize(("shape", "grid"), [((1,), 1), ((4096,), 1), ((4097,), 2), ((100, 333), 9)])
def test_random_bits_launches_one_thread_for_16_numbers(cupy, backend, shape, grid):
    bits = backend.random_bits(KEY, 2, 3, 4, shape)
    np.testing.assert_array_equal(bits, CPU.random_bits(KEY, 2, 3, 4, shape))
    ((_, name, device, launched, block, arguments),) = cupy.fake.log
    assert (name, device, launched, block) == ("philox_bits", 0, (grid,), (256,))
    assert [type(argument) for argument in arguments[1:6]] == [np.int64] + [np.uint64] * 4
    assert list(arguments[1:]) == [bits.size, 7, 3, 2, 3, None, 4]


def test_random_bits_takes_the_largest_key(backend):
    key = (2**64 - 1, 3)
    np.testing.assert_array_equal(backend.random_bits(key, 0, 0, 0, (20,)), CPU.random_bits(key, 0, 0, 0, (20,)))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_random_bits_reads_a_device_step_on_the_device(cupy, backend, shape):
    step = backend.asarray(np.full(shape, 41))
    bits = backend.random_bits(KEY, 0, step, 0, (50,))
    np.testing.assert_array_equal(bits, CPU.random_bits(KEY, 0, 41, 0, (50,)))
    ((_, *_, arguments),) = cupy.fake.log  # one launch, and no wait
    assert arguments[6] is step


def test_random_bits_takes_a_host_array_as_step(backend):
    np.testing.assert_array_equal(
        backend.random_bits(KEY, 0, np.array([41]), 0, (50,)), CPU.random_bits(KEY, 0, 41, 0, (50,))
    )


def test_random_bits_refuses_a_step_that_the_kernel_would_misread(backend):
    with pytest.raises(ValueError, match="step: expected one int64 on cuda:0, got 1 of int32 on cuda:0"):
        backend.random_bits(KEY, 0, backend.asarray(np.zeros(1, np.int32)), 0, (3,))
    with pytest.raises(ValueError, match="got 2 of int64 on cuda:0"):
        backend.random_bits(KEY, 0, backend.asarray(np.zeros(2, np.int64)), 0, (3,))
    with pytest.raises(ValueError, match="got 1 of int64 on cuda:1"):
        backend.random_bits(KEY, 0, CupyBackend(1).asarray(np.zeros(1, np.int64)), 0, (3,))


def test_random_bits_of_nothing_launches_nothing(cupy, backend):
    assert backend.random_bits(KEY, 0, 0, 0, (0, 3)).shape == (0, 3)
    assert cupy.fake.log == []


def test_random_bits_uses_the_backends_device(cupy):
    bits = CupyBackend(1).random_bits(KEY, 0, 0, 0, (3,))
    assert bits.device.id == 1
    assert cupy.fake.log[0][2] == 1


def test_gemm(backend):
    a, b = backend.asarray(np.arange(6.0).reshape(2, 3)), backend.asarray(np.arange(12.0).reshape(4, 3))
    out = backend.asarray(np.zeros((2, 4)))
    assert backend.gemm(a, b.T, out=out) is out
    np.testing.assert_array_equal(out, np.arange(6.0).reshape(2, 3) @ np.arange(12.0).reshape(4, 3).T)
    with pytest.raises(ValueError, match=r"gemm: out of shape \(4, 2\) for operands of shapes"):
        backend.gemm(a, b.T, out=out.T)


def test_memory_and_description(backend):
    assert backend.memory() == (3 << 20, 5 << 30, 139 << 30)
    assert backend.describe().startswith("CuPy 14.2.0 on NVIDIA Fake 0, CUDA 12.9, 139 GiB; ")


# On a GPU --------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu():
    return get_backend("cuda")


class TestFeed:
    def test_batches_come_in_order(self, backend):
        source = np.arange(20.0).reshape(10, 2)
        feed = backend.prefetcher([source], 3)
        feed.send(np.array([1, 5, 2]))
        for rows in ([0, 9, 4], [7, 7, 7], [3, 2, 1]):
            feed.send(np.array(rows))  # ahead of the one that is received
            feed.receive()
        feed.receive()
        np.testing.assert_array_equal(np.array(feed.arrays[0]), source[[3, 2, 1]])

    def test_a_slots_memory_is_free_before_the_first_copy(self, cupy, backend, monkeypatch):
        """It may come from the pool with somebody's work on it still to be done."""
        waited, recorded = [], []
        record = cupy.cuda.Event.record
        monkeypatch.setattr(cupy.cuda.Stream, "wait_event", lambda self, event: waited.append(event))
        monkeypatch.setattr(
            cupy.cuda.Event, "record", lambda self, stream=None: recorded.append(self) or record(self, stream)
        )
        backend.prefetcher([np.ones((4, 2))], 2).send(np.array([0, 1]))
        assert waited == recorded[:1]

    def test_dropped_with_a_batch_on_its_way_it_waits_for_it(self, cupy, backend):
        feed = backend.prefetcher([np.ones((4, 2))], 2)
        feed.send(np.array([0, 1]))
        (copy,) = feed._stream.late
        assert not copy.done
        del feed
        gc.collect()
        assert copy.done


@pytest.mark.gpu
def test_gpu_arrays_there_and_back(gpu):
    host = np.arange(12, dtype=np.int64).reshape(3, 4)
    array = gpu.asarray(host, np.float32)
    assert gpu.owns(array)
    assert gpu.asarray(array) is array
    back = gpu.to_numpy(array)
    assert (type(back), back.dtype) == (np.ndarray, np.float32)
    np.testing.assert_array_equal(back, host)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(), (1,), (100, 784), (3, 5, 7), (5_000_000,)])
def test_gpu_uploads_arrive_in_order(gpu, shape):
    outs = [gpu.xp.empty(shape, np.float32) for _ in range(5)]
    host = np.empty(shape, np.float32)
    for number, out in enumerate(outs):
        host[...] = number
        gpu.upload(host, out)
    for number, out in enumerate(outs):
        assert (gpu.to_numpy(out) == number).all()


@pytest.mark.gpu
def test_gpu_upload_into_a_column(gpu):
    whole = gpu.xp.zeros((3, 2), np.float32)
    gpu.upload(np.arange(3.0), whole[:, 1])
    assert gpu.to_numpy(whole).tolist() == [[0, 0], [0, 1], [0, 2]]


@pytest.mark.gpu
def test_gpu_upload_does_not_wait_for_the_device(gpu):
    cupy = gpu.xp
    out, host = gpu.asarray(np.zeros(1000, np.float32)), np.ones(1000, np.float32)
    big = cupy.ones((4096, 4096), np.float32)
    gpu.upload(host, out)  # makes the staging buffers and warms everything up
    gpu.upload(host, out)
    cupy.matmul(big, big)
    gpu.synchronize()
    for _ in range(20):  # tens of milliseconds of work in the stream
        cupy.matmul(big, big)
    end = cupy.cuda.Event()
    end.record()
    gpu.upload(host, out)
    gpu.upload(host, out)
    assert not end.done
    gpu.synchronize()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("ta", "tb"), [(False, False), (True, False), (False, True), (True, True)])
def test_gpu_gemm_takes_transposed_views_without_a_copy(gpu, dtype, ta, tb):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((50, 70) if ta else (70, 50)).astype(dtype)
    b = rng.standard_normal((30, 50) if tb else (50, 30)).astype(dtype)
    expected = (a.T if ta else a).astype(np.float64) @ (b.T if tb else b)
    da, db = gpu.asarray(a), gpu.asarray(b)
    da, db = da.T if ta else da, db.T if tb else db
    out = gpu.xp.empty((70, 30), dtype)
    gpu.gemm(da, db, out=out)
    allocated = []

    class Allocations(gpu.xp.cuda.MemoryHook):
        name = "allocations"

        def malloc_preprocess(self, **about):
            allocated.append(about["mem_size"])

    with Allocations():
        assert gpu.gemm(da, db, out=out) is out
    assert allocated == []
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(gpu.to_numpy(out), expected, rtol=rtol, atol=10 * rtol)


@pytest.mark.gpu
def test_gpu_gemm_of_stacks(gpu):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 5, 4)), rng.standard_normal((3, 6, 4))
    product = gpu.gemm(gpu.asarray(a), gpu.asarray(b).transpose(0, 2, 1))
    np.testing.assert_allclose(gpu.to_numpy(product), a @ b.transpose(0, 2, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
def test_gpu_gemm_refuses_an_out_of_another_shape(gpu):
    a = gpu.asarray(np.ones((2, 3)))
    with pytest.raises(ValueError, match="gemm: out of shape"):
        gpu.gemm(a, a.T, out=gpu.asarray(np.ones((4, 1))))


@pytest.mark.gpu
def test_gpu_out_of_memory(gpu):
    pool = gpu.xp.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=1)
    try:
        with pytest.raises(MemoryError, match=r"cuda:0 is out of memory: a float32 array .* needs 64\.0 MiB"):
            gpu.asarray(np.zeros((16, 1 << 20), np.float32))
    finally:
        pool.set_limit(size=0)


@pytest.mark.gpu
def test_gpu_memory_and_description(gpu):
    memory = gpu.memory()
    assert 0 <= memory.used <= memory.total
    assert 0 < memory.free <= memory.total
    assert gpu.describe().startswith(f"CuPy {gpu.xp.__version__} on NVIDIA ")


@pytest.mark.gpu
def test_gpu_to_gpu():
    from fcnet.backends import probe

    if probe().device_count < 2:
        pytest.skip("one GPU only")
    first, second = get_backend("cuda:0"), get_backend("cuda:1")
    array = first.asarray(np.arange(6.0).reshape(2, 3)).T
    moved = second.asarray(array)
    assert second.owns(moved)
    np.testing.assert_array_equal(second.to_numpy(moved), np.arange(6.0).reshape(2, 3).T)

"""Random bits: pinned values, an independent Philox, and the CUDA source run on the CPU."""

import numpy as np
import pytest

from fcnet.backends import Purpose, get_backend
from fcnet.backends.cuda.sources import source
from tests.kernels.cuda_cpu import CpuKernel

CPU = get_backend("cpu")
KEY = (0, int(Purpose.DROPOUT))
MASK = 2**64 - 1
SIZES = [1, 3, 15, 16, 17, 100, 4096, 10001]


def numbers(text):
    return [int(number) for number in text.split()]


# (key, layer, step, net) -> the first 18 numbers; the last two are of the second block.
GOLDEN = {
    ((0, 3), 0, 0, 0): numbers(
        "7059 7890 2014 31140 35559 28839 28803 31976 61546 51107 50465 36388 20096 35971 45875 39100 3812 53224"
    ),
    ((2**64 - 1, 3), 2, 123456789012, 7): numbers(
        "43623 7421 14519 5009 15006 10496 39377 41437 2146 52243 65424 13593 9230 11257 38431 63173 8605 9726"
    ),
}


def philox_words(key, counter, count):
    """`count` words from Python's own integers, after the paper; `counter` is that of the first block."""
    words = []
    while len(words) < count:
        (k0, k1), (c0, c1, c2, c3) = key, counter
        for _ in range(10):
            p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
            c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & MASK, (p0 >> 64) ^ c3 ^ k1, p0 & MASK
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
        words += [c0, c1, c2, c3]
        counter = (counter[0] + 1, *counter[1:])
    return words[:count]


def expected_bits(key, layer, step, net, size):
    """Return what `random_bits` promises, number by number."""
    words = philox_words(key, (1, layer, step, net), -(-size // 4))
    return [words[i // 4] >> 16 * (i % 4) & 0xFFFF for i in range(size)]


@pytest.fixture(scope="module")
def cuda_bits():
    """Return the kernel philox_bits on the CPU: cuda_bits(key, layer, step, net, size, offset=0, threads=32)."""
    kernel = CpuKernel(source("philox"), "philox_bits")

    def run(key, layer, step, net, size, offset=0, threads=32):
        u64 = np.uint64
        canary = np.uint16(0xBEEF)
        room = np.full(size + 64, canary)
        start = -room.ctypes.data % 16 // 2 + offset  # 16-byte alignment, then `offset` numbers off it
        out = room[start : start + size]
        pointer = step if isinstance(step, np.ndarray) else None
        value = u64(99 if pointer is not None else step)  # must not count when there is a pointer
        blocks = -(-size // 16)
        arguments = (out, np.int64(size), u64(key[0]), u64(key[1]), u64(layer), value, pointer, u64(net))
        kernel((-(-blocks // threads),), (threads,), arguments)
        assert (room[:start] == canary).all(), "written before the array"
        assert (room[start + size :] == canary).all(), "written after the array"
        return out.copy()

    return run


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_values(case):
    key, layer, step, net = case
    bits = CPU.random_bits(key, layer, step, net, (18,))
    assert bits.dtype == np.uint16
    assert bits.tolist() == GOLDEN[case]
    assert expected_bits(key, layer, step, net, 18) == GOLDEN[case]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_prefixes_of_one_another(size):
    whole = CPU.random_bits(KEY, 1, 2, 0, (20000,))
    np.testing.assert_array_equal(CPU.random_bits(KEY, 1, 2, 0, (size,)), whole[:size])


def test_shape_is_row_major():
    bits = CPU.random_bits(KEY, 1, 2, 0, (3, 5, 7))
    assert bits.shape == (3, 5, 7)
    np.testing.assert_array_equal(bits.ravel(), CPU.random_bits(KEY, 1, 2, 0, (105,)))


def test_empty_shape():
    assert CPU.random_bits(KEY, 0, 0, 0, (0, 4)).shape == (0, 4)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_step_may_be_an_array_of_one_element(shape):
    step = np.full(shape, 41, dtype=np.int64)
    np.testing.assert_array_equal(CPU.random_bits(KEY, 0, step, 0, (33,)), CPU.random_bits(KEY, 0, 41, 0, (33,)))


@pytest.mark.parametrize(
    "other", [((1, 3), 0, 0, 0), ((0, 4), 0, 0, 0), (KEY, 1, 0, 0), (KEY, 0, 1, 0), (KEY, 0, 0, 1)]
)
def test_each_argument_gives_other_numbers(other):
    first = CPU.random_bits(KEY, 0, 0, 0, (4096,))
    second = CPU.random_bits(*other, (4096,))
    assert np.count_nonzero(first == second) < 10  # 4096 / 65536 coincide by chance


def test_numbers_do_not_depend_on_what_was_drawn_before():
    first = CPU.random_bits(KEY, 0, 5, 0, (7,))
    CPU.random_bits(KEY, 3, 8, 1, (11,))
    np.testing.assert_array_equal(CPU.random_bits(KEY, 0, 5, 0, (7,)), first)


@pytest.mark.parametrize("case", GOLDEN)
@pytest.mark.parametrize("size", SIZES)
def test_cuda_source_gives_numpys_bits(cuda_bits, case, size):
    np.testing.assert_array_equal(cuda_bits(*case, size), CPU.random_bits(*case, (size,)))


@pytest.mark.parametrize("offset", [1, 4, 7])
@pytest.mark.parametrize("size", [16, 17, 100])
def test_cuda_source_writes_to_any_address(cuda_bits, offset, size):
    np.testing.assert_array_equal(cuda_bits(KEY, 1, 2, 3, size, offset), CPU.random_bits(KEY, 1, 2, 3, (size,)))


@pytest.mark.parametrize("threads", [1, 64, 256])
def test_cuda_source_does_not_depend_on_the_block_size(cuda_bits, threads):
    np.testing.assert_array_equal(
        cuda_bits(KEY, 1, 2, 3, 5000, threads=threads), CPU.random_bits(KEY, 1, 2, 3, (5000,))
    )


def test_cuda_source_reads_the_step_from_memory(cuda_bits):
    step = np.array([41], dtype=np.int64)
    np.testing.assert_array_equal(cuda_bits(KEY, 0, step, 0, 50), CPU.random_bits(KEY, 0, 41, 0, (50,)))


@pytest.mark.gpu
@pytest.mark.parametrize("case", GOLDEN)
@pytest.mark.parametrize("size", [*SIZES, 3_000_001])
def test_gpu_gives_numpys_bits(case, size):
    gpu = get_backend("cuda")
    bits = gpu.to_numpy(gpu.random_bits(*case, (size,)))
    np.testing.assert_array_equal(bits, CPU.random_bits(*case, (size,)))


@pytest.mark.gpu
def test_gpu_reads_the_step_on_the_device():
    gpu = get_backend("cuda")
    step = gpu.asarray(np.array([41], dtype=np.int64))
    first = gpu.random_bits(KEY, 0, step, 0, (50,))
    step += 1
    second = gpu.random_bits(KEY, 0, step, 0, (50,))
    np.testing.assert_array_equal(gpu.to_numpy(first), CPU.random_bits(KEY, 0, 41, 0, (50,)))
    np.testing.assert_array_equal(gpu.to_numpy(second), CPU.random_bits(KEY, 0, 42, 0, (50,)))

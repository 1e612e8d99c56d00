"""Random numbers as functions of who asks: golden values, independence of the streams, seeds."""

import numpy as np
import pytest

from fcnet.backends import MaskStream, Purpose, check_seed, get_backend, host_generator

CPU = get_backend("cpu")


def test_golden_permutation():
    """The order of the first epochs of seed 0: a data set is gone through alike in every release."""
    orders = [host_generator(0, Purpose.SHUFFLE, step=epoch).permutation(12).tolist() for epoch in (0, 1)]
    assert orders == GOLDEN_ORDERS


def test_golden_weights():
    np.testing.assert_array_equal(host_generator(0, Purpose.WEIGHTS, 1).standard_normal(4), GOLDEN_NORMALS)


def test_golden_masks():
    stream = MaskStream(CPU, seed=0, layer=1, step=2)
    assert stream.bits((2, 4)).tolist() == GOLDEN_BITS


def test_purposes_are_part_of_the_file_format():
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "WEIGHTS": 1,
        "SHUFFLE": 2,
        "DROPOUT": 3,
        "DATA": 4,
    }


def test_a_generator_is_a_function_of_its_arguments():
    def draw(**changes):
        options = {"seed": 1, "purpose": Purpose.DATA, "layer": 1, "step": 1, "net": 1} | changes
        return host_generator(**options).random(1000)

    np.testing.assert_array_equal(draw(), draw())
    streams = [draw(), draw(purpose=Purpose.SHUFFLE)]
    streams += [draw(**{name: 2}) for name in ("seed", "layer", "step", "net")]
    values = np.concatenate(streams)
    assert len(np.unique(values)) == len(values)  # no stream overlaps another


def test_global_state_is_neither_read_nor_moved():
    state = np.random.get_state()[1].copy()
    first = host_generator(3, Purpose.DATA).random(3)
    np.random.seed(99)
    np.testing.assert_array_equal(host_generator(3, Purpose.DATA).random(3), first)
    np.random.set_state(("MT19937", state, 624))


def test_bits_are_the_same_on_every_device(backend, host):
    for shape in ((3, 5), (1,), (17, 33)):
        bits = MaskStream(backend, 9, 2, 4, 1).bits(shape)
        expected = CPU.random_bits((9, int(Purpose.DROPOUT)), 2, 4, 1, shape)
        assert host(bits).dtype == np.uint16
        np.testing.assert_array_equal(host(bits), expected)


def test_bits_read_a_step_on_the_device(backend, device, host):
    step = device([4], "int64")
    stream = MaskStream(backend, 9, 2, step)
    for number in (4, 5, 2**40):
        step[...] = number
        np.testing.assert_array_equal(host(stream.bits((3, 5))), host(MaskStream(backend, 9, 2, number).bits((3, 5))))


def test_bits_are_uniform():
    bits = MaskStream(CPU, 1).bits((1000, 100)).astype(float)
    sigma = 65536 / 12**0.5 / bits.size**0.5
    assert abs(bits.mean() - 32767.5) < 4 * sigma
    assert bits.min() < 16
    assert bits.max() > 65519
    for bit in range(16):
        share = (MaskStream(CPU, 1).bits((1000, 100)) >> bit & 1).mean()
        assert abs(share - 0.5) < 4 * 0.5 / bits.size**0.5


def test_larger_shapes_begin_alike():
    """A mask's first elements do not depend on how many follow."""
    long = MaskStream(CPU, 1).bits((100,))
    for size in (1, 3, 4, 5, 99):
        np.testing.assert_array_equal(MaskStream(CPU, 1).bits((size,)), long[:size])


def test_no_bits():
    assert MaskStream(CPU, 1).bits((0, 4)).shape == (0, 4)


def test_threads_do_not_share_a_generator():
    from concurrent.futures import ThreadPoolExecutor

    expected = [MaskStream(CPU, seed).bits((50,)).tolist() for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            got = list(pool.map(lambda seed: MaskStream(CPU, seed).bits((50,)).tolist(), range(8)))
            assert got == expected


def test_seeds():
    assert check_seed(0) == 0
    assert check_seed(2**64 - 1) == 2**64 - 1
    assert type(check_seed(np.int32(5))) is int
    assert check_seed(np.uint64(2**63)) == 2**63
    host_generator(2**64 - 1, Purpose.DATA).random()


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "seed: expected 0 to 2**64 - 1, got -1"),
        (2**64, ValueError, "seed: expected 0 to 2**64 - 1, got 18446744073709551616"),
        (1.0, TypeError, "seed: expected an integer, got 1.0 of type float"),
        ("1", TypeError, "seed: expected an integer, got '1' of type str"),
        (None, TypeError, "seed: expected an integer, got None of type NoneType"),
        (True, TypeError, "seed: expected an integer, got True of type bool"),
    ],
)
def test_bad_seeds_are_named(seed, error, message):
    for function in (
        check_seed,
        lambda seed: MaskStream(CPU, seed),
        lambda seed: host_generator(seed, Purpose.DATA),
    ):
        with pytest.raises(error) as caught:
            function(seed)
        assert str(caught.value) == message


GOLDEN_ORDERS = [[10, 1, 4, 8, 9, 7, 11, 3, 2, 5, 6, 0], [2, 7, 3, 1, 6, 5, 0, 8, 11, 4, 9, 10]]
GOLDEN_NORMALS = [-1.2261360781167971, -1.1823208346560528, -0.05593030910319699, 0.8519882519538069]
GOLDEN_BITS = [[23512, 34380, 15925, 58477], [8805, 40783, 54316, 26577]]

"""Products through cuBLAS: the Python of it, on a stand-in."""

# ruff: noqa: F401, F811 - fixtures are imported and then asked for by name

from __future__ import annotations

import numpy as np
import pytest

import fcnet
from fcnet.backends.cuda import gemm
from fcnet.backends.cuda.bf16 import rounded
from fcnet.backends.cuda.gemm import CublasError
from fcnet.backends.cupy_backend import CupyBackend
from tests.backends.cuda_fake import fake_cublas_lt
from tests.backends.test_cuda_graph import cublas, cupy, device
from tests.small import blobs


class TestGemm:
    @pytest.mark.parametrize("ta", [False, True])
    @pytest.mark.parametrize("tb", [False, True])
    @pytest.mark.parametrize("given", [False, True])
    def test_every_pair_of_transposes(self, ta, tb, given, device, cublas, dtype):
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((3, 4)).astype(dtype), rng.standard_normal((4, 5)).astype(dtype)
        on_device = device.asarray(a.T if ta else a), device.asarray(b.T if tb else b)
        views = on_device[0].T if ta else on_device[0], on_device[1].T if tb else on_device[1]
        out = device.xp.empty((3, 5), dtype) if given else None
        got = device.gemm(*views, out=out)
        assert (got is out) is given
        assert cublas.log[-1][0] == "gemm"
        np.testing.assert_allclose(np.array(got), a @ b, rtol=1e-5 if dtype == "float32" else 1e-12)

    @pytest.mark.parametrize("ta", [False, True])
    @pytest.mark.parametrize(("precision", "bits"), [("tf32", 11), ("bf16", 8)])
    def test_reduced_precision_rounds_the_operands_and_nothing_else(self, precision, bits, ta, device, cublas):
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal(shape).astype("float32") for shape in ((3, 400), (400, 5)))
        view = device.asarray(np.ascontiguousarray(a.T)).T if ta else device.asarray(a)
        got = np.array(device.gemm(view, device.asarray(b), precision=precision))
        rounded = [np.ldexp(np.round(np.ldexp(m, bits)), e - bits) for m, e in (np.frexp(a), np.frexp(b))]
        np.testing.assert_allclose(got, rounded[0] @ rounded[1], rtol=2e-5, atol=2e-5)
        assert got.dtype == np.float32
        assert np.max(np.abs(got - a @ b)) > 1e-4  # it did round
        double = device.gemm(device.asarray(a.astype("float64")), device.asarray(b.astype("float64")))
        np.testing.assert_allclose(np.array(double), a.astype("float64") @ b, rtol=1e-12)

    @pytest.mark.parametrize("given", [False, True])
    def test_a_result_in_bf16_is_rounded_where_it_is_asked_for(self, given, device):
        rng = np.random.default_rng(0)
        a, b = (device.asarray(rng.standard_normal(shape).astype("float32")) for shape in ((3, 40), (40, 5)))
        out = device.xp.empty((3, 5), "float32") if given else None
        whole = device.gemm(a, b, precision="bf16")
        got = device.gemm(a, b, out, precision="bf16", stored="bf16")
        assert got.dtype == np.float32
        assert (got is out) is given
        bits = np.array(rounded(device._launcher, whole)).astype("uint32") << 16
        np.testing.assert_array_equal(np.array(got), bits.view("float32"))
        np.testing.assert_array_equal(np.array(device.gemm(a, b, stored="bf16")), np.array(device.gemm(a, b)))

    @pytest.mark.parametrize("shape", [(1, 1), (70, 33), (32, 64), (5, 100)])
    def test_a_matrix_is_transposed(self, shape, device):
        x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
        got = device._own_gemm().transposed(device.asarray(x).T)
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(np.array(got), x.T)

    @pytest.mark.parametrize(
        ("tiles", "used", "calls"),
        [
            ([(20, 4), (24, 2), (24, 5), (24, 5)], [2], 0),  # the first that is preferred
            ([(20, 4), (24, 2)], [], 1),
            ([], [], 1),
        ],
    )
    @pytest.mark.parametrize("ta", [False, True])
    @pytest.mark.parametrize("tb", [False, True])
    def test_large_products_by_the_preferred_algorithm(self, tiles, used, calls, ta, tb, device, cublas, monkeypatch):
        lt = fake_cublas_lt(device.xp, tiles)
        monkeypatch.setattr(gemm, "library", {"cublasLt": lt}.__getitem__)
        monkeypatch.setattr(gemm, "LARGE", 3)
        rng = np.random.default_rng(0)
        a, b = (rng.integers(-9, 9, shape).astype("float32") for shape in ((3, 4), (4, 5)))
        x = device.asarray(np.ascontiguousarray(a.T)).T if ta else device.asarray(a)
        y = device.asarray(np.ascontiguousarray(b.T)).T if tb else device.asarray(b)
        for _ in range(2):
            np.testing.assert_array_equal(np.array(device.gemm(x, y, precision="tf32")), a @ b)
        device.gemm(x, y)  # in full precision
        monkeypatch.setattr(gemm, "HOPPER", "100")
        device.gemm(x, y, precision="tf32")  # on another device
        assert lt.log == 2 * used
        assert [entry[0] for entry in cublas.log].count("gemm") == 2 * calls + 2

    @pytest.mark.parametrize(
        ("tiles", "said"),
        [
            ([(24, 5)], "large ones in tf32 by cuBLASLt"),
            ([(20, 4)], "not by cuBLASLt, so slower: version 130200 does not offer the algorithm"),
            (None, "not by cuBLASLt, so slower: no such file"),
        ],
    )
    def test_what_makes_large_products_is_said(self, tiles, said, device, monkeypatch):
        """In a device's description, as `fcnet info` prints it, and in that of a step."""

        def library(name):
            if tiles is None:
                raise OSError("no such file")
            return fake_cublas_lt(device.xp, tiles)

        monkeypatch.setattr(gemm, "library", library)
        monkeypatch.setattr(gemm, "LARGE", 3)
        model = fcnet.FullyConnectedNet([40], 6, 40, precision="tf32", device=device)
        solver = fcnet.Solver(model, blobs(n=120, c=40, dtype="float32"), batch_size=60, verbose=False)
        solver.step()
        (line,) = solver.how_steps_are_made
        assert said in line
        assert said in device.describe()
        monkeypatch.setattr(gemm, "HOPPER", "100")
        assert device.describe().endswith("; products by cuBLAS")

    def test_parts_added_in_place_are_not_taken_and_a_choice_is_shared(self, device, cublas, monkeypatch):
        """In-place sums run in any order; a second stream chooses nothing while a graph is captured."""
        lt = fake_cublas_lt(device.xp, [(24, 5), (24, 5)], in_place=[0])
        monkeypatch.setattr(gemm, "library", {"cublasLt": lt}.__getitem__)
        monkeypatch.setattr(gemm, "LARGE", 1)
        a = device.asarray(np.ones((2, 2), "float32"))
        device.gemm(a, a, precision="tf32")
        other = gemm.Gemm(device._launcher, cublas)
        other.ready(device._own_gemm())
        monkeypatch.setattr(gemm, "Lt", None)
        other(a, a, precision="tf32")
        assert lt.log == [1, 1]

    def test_bfloat16_is_to_the_nearest_even_with_infinities_and_nan(self, device):
        values = [1.0, -1.5, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 3e38, 3.4e38, np.inf, -np.inf, np.nan, 1e-40]
        expected = [1.0, -1.5, 1.0, 1 + 2**-6, 1 + 2**-7, 3.004055e38, np.inf, np.inf, -np.inf, np.nan, 2**-133]
        x = device.asarray(np.array([values], "float32"))
        bits = np.array(rounded(device._launcher, x)).astype("uint32") << 16
        np.testing.assert_allclose(bits.view("float32")[0], np.float32(expected), rtol=1e-3)

    def test_old_gpus_have_full_precision_only(self, device):
        assert device.precisions == ("tf32", "bf16")
        device._device.compute_capability = "75"
        with pytest.raises(ValueError, match="precision: expected 'float32' on cuda:0, got 'bf16'"):
            fcnet.FullyConnectedNet([4], 3, 2, precision="bf16", device=device)

    def test_the_workspace_is_set_again_after_each_change_of_stream(self, device, cupy, cublas):
        a = device.asarray(np.ones((2, 2)))
        device.gemm(a, a)
        device.gemm(a, a)
        with cupy.cuda.Stream():
            device.gemm(a, a)
        names = [entry[0] for entry in cublas.log]
        assert names == ["create", "stream", "workspace", "gemm", "gemm", "stream", "workspace", "gemm"]

    def test_what_cublas_is_not_asked_for(self, device, cublas):
        a = device.asarray(np.arange(16.0).reshape(4, 4))
        for x, y, out in [
            (a[:, ::2], a[:2], None),
            (a[None], a[None], None),
            (a.astype("int64"), a.astype("int64"), None),
            (a, a, a),
        ]:
            expected = np.array(x) @ np.array(y)
            np.testing.assert_array_equal(np.array(device.gemm(x, y, out=out)), expected)
        assert "gemm" not in [entry[0] for entry in cublas.log]

    def test_a_failure_names_the_function(self, device, cublas):
        a = device.asarray(np.ones((2, 2)))
        device.gemm(a, a)
        cublas.cublasGemmEx = lambda *_: 13
        with pytest.raises(CublasError, match="cublasGemmEx returned status 13"):
            device.gemm(a, a)

    def test_without_cublas_cupy_multiplies_and_describe_says_so(self, cupy, monkeypatch):
        def missing():
            raise OSError("no libcublas here")

        monkeypatch.setattr("fcnet.backends.cupy_backend.library", missing)
        backend = CupyBackend(0)
        a = backend.asarray(np.eye(2))
        np.testing.assert_array_equal(np.array(backend.gemm(a, a)), np.eye(2))
        assert backend.describe().endswith("; steps are not captured: no libcublas here")

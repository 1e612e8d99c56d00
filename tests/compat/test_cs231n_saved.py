"""`save` and `load` of the course's models: files of the course's form, read without running anything of them."""

import pickle

import numpy as np
import pytest

import fcnet
from fcnet.compat.cs231n import FullyConnectedNet, LinearSVM, Softmax, TwoLayerNet

X = np.arange(12.0).reshape(3, 4) / 10


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Go to an empty working directory; return the folder below it that the course saves to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cs231n" / "saved"


def trained(kind):
    model = kind()
    model.train(X, [0, 1, 2], num_iters=2)
    return model


def test_a_net_is_saved_in_the_courses_form(folder, capsys):
    net = TwoLayerNet(4, 5, 3)
    net.save("best_two_layer_net.npy")
    content = np.load(folder / "best_two_layer_net.npy", allow_pickle=True)
    assert content.shape == ()
    assert sorted(content.item()) == ["W1", "W2", "b1", "b2"]
    np.testing.assert_array_equal(content.item()["W1"], net.params["W1"])
    other = TwoLayerNet(4, 5, 3)
    assert other.load("best_two_layer_net.npy") is True
    np.testing.assert_array_equal(other.loss(X), net.loss(X))
    other.params["b1"] += 1  # what is loaded can be trained
    assert TwoLayerNet().load("nothing.npy") is False
    assert capsys.readouterr().out.splitlines() == [
        "best_two_layer_net.npy saved.",
        "best_two_layer_net.npy loaded.",
        "nothing.npy not available.",
    ]


@pytest.mark.parametrize("kind", [Softmax, LinearSVM])
def test_a_linear_classifier(folder, kind):
    model, copy = trained(kind), kind()
    model.save("best")  # np.save adds the ending
    np.testing.assert_array_equal(np.load(folder / "best.npy", allow_pickle=True).item()["W"], model.W)
    assert copy.load("best")
    np.testing.assert_array_equal(copy.W, model.W)
    assert not kind().load("other")


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
def test_what_other_versions_of_numpy_wrote(folder, protocol, dtype):
    params = {"W1": np.asfortranarray(X, dtype), "b1": np.ones(2, dtype)[::-1], "W2": X[:0].astype(dtype)}
    params |= {"b2": np.arange(3).astype(dtype)}
    folder.mkdir(parents=True)
    content = pickle.dumps(np.array(params), protocol)
    if protocol == 3:
        content = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with (folder / "net.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(content)
    net = TwoLayerNet()
    assert net.load("net.npy")
    for name, value in params.items():
        assert net.params[name].dtype == value.dtype
        np.testing.assert_array_equal(net.params[name], value)


class Evil:
    def __reduce__(self):
        return open, ("written", "w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), r"it wants to load \w+\.open, which was refused and not run; save it again$"),
        ({"W": Evil()}, r"it wants to load \w+\.open, which was refused"),
        ({"W": np.array([Evil()], object)}, r"it wants to load \w+\.open, which was refused"),
        ({"W": np.arange(3)}, r"an array of 'i8', not 'f2' or 'f4' or 'f8', which was refused"),
        ({"W": [1.0]}, r"expected arrays by their names; got list for 'W'"),
        ({1: X}, r"expected arrays by their names; got ndarray for 1"),
        ([X], r"expected a dict; got list"),
        ({"W1": X}, r"expected W, got W1; load it into a model of the kind that wrote it"),
    ],
)
def test_a_file_of_something_else(folder, content, message):
    folder.mkdir(parents=True)
    box = np.empty((), object)
    box[()] = content
    np.save(folder / "m.npy", box)
    with pytest.raises(ValueError, match=message) as caught:
        Softmax().load("m.npy")
    assert str(caught.value).startswith("cs231n/saved/m.npy: ")
    assert [path.name for path in folder.parent.parent.iterdir()] == ["cs231n"], "nothing was run"


def test_a_damaged_file(folder):
    model = trained(Softmax)
    model.save("m.npy")
    path = folder / "m.npy"
    whole = path.read_bytes()
    np.save(path, X)
    with pytest.raises(ValueError, match=r"expected an .npy file of a dict; got one of float64 \(3, 4\)"):
        Softmax().load("m.npy")
    for part in (
        b"",
        b"text",
        whole[:20],
        whole[:100],
        whole[:-40],
        whole[:30] + b"}" + whole[31:],
        whole[:10] + b"(" + whole[11:],
    ):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"m\.npy: expected .*; save it again"):
            Softmax().load("m.npy")
    path.write_bytes(whole)
    assert model.load("m.npy")


def test_under_a_name_for_safetensors_fcnets_own_form_is_written(folder, tmp_path):
    net = FullyConnectedNet([5], 4, 3, normalization="batchnorm", weight_scale=0.3)
    net.loss(X, np.arange(3))
    net.save("net.safetensors")
    assert not folder.exists()
    np.testing.assert_allclose(fcnet.load("net.safetensors", device="cpu").scores(X), net.loss(X), rtol=1e-5)

"""Saving and loading: the same network back, and no silence about a damaged file."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

import fcnet
from fcnet.files import write_atomically
from fcnet.runs.container import digest
from tests.small import blobs, net, solver


@pytest.fixture
def trained():
    data = blobs()
    one = solver(data, num_epochs=2, net_options={"normalization": "batchnorm"}, preprocess="standardize")
    one.train()
    one.model.classes = ("ä", "b", "c,d")
    return one.model


def test_what_was_saved_comes_back(trained, tmp_path, backend):
    path = tmp_path / "a.safetensors"
    trained.save(path)
    other = fcnet.load(path, device=backend)
    assert other.config == trained.config
    assert other.classes == trained.classes
    X = blobs().X_test
    np.testing.assert_allclose(other.scores(X), trained.scores(X), rtol=1e-5, atol=1e-6)
    if backend.name == "cpu":
        np.testing.assert_array_equal(other.scores(X), trained.scores(X))
    again = tmp_path / "b.safetensors"
    other.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_other_libraries_can_read_the_tensors(trained, tmp_path):
    from safetensors.numpy import load_file

    trained.save(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(tensors["W1"], trained.params["W1"])
    assert tensors["running_mean1"].shape == (8,)


def test_a_folder_means_the_model_in_it(trained, tmp_path):
    trained.save(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    fcnet.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 2000, -1])
def test_truncated_files(trained, tmp_path, keep):
    path = tmp_path / "a.safetensors"
    trained.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="truncated or foreign file") as caught:
        fcnet.load(path)
    assert "\n" not in str(caught.value)


def test_every_changed_byte_is_noticed(trained, tmp_path):
    path = tmp_path / "a.safetensors"
    trained.save(path)
    good = path.read_bytes()
    (header,) = struct.unpack("<Q", good[:8])
    for at in range(8 + header, len(good), 97):  # the tensors' bytes
        bad = bytearray(good)
        bad[at] ^= 1
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"was changed since it was saved|truncated or foreign"):
            fcnet.load(path)


def rewrite(path, change, *, sign=True):
    """Change the JSON description of a saved model, and make its digest anew, as whoever forges it would."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    description = json.loads(header["__metadata__"]["fcnet"].partition("\n")[0])
    change(description)
    text = json.dumps(description)
    tensors = load(data)
    header["__metadata__"]["fcnet"] = f"{text}\n{digest(text, tensors)}" if sign else text
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=99), "expected file format 2, got 99"),
        (lambda d: d.update(format={"a": [1]}), "expected file format 2"),
        (lambda d: d.update(kind="checkpoint"), "expected a model saved by fcnet, got a checkpoint"),
        (lambda d: d["config"].update(hidden_dims=[9]), "tensors are not those"),
        (lambda d: d["config"].update(hidden_dims=[10**400]), "does not hold together"),
        (lambda d: d["config"].update(dtype="int8"), "dtype"),
        (lambda d: d["config"].pop("input_dim"), "does not hold together"),
        (lambda d: d["config"].update(surprise=1), "does not hold together"),
        (lambda d: d.update(classes=5), "does not hold together"),
        (lambda d: d.update(config=[1]), "does not hold together"),
    ],
)
def test_descriptions_that_do_not_fit(trained, tmp_path, change, message):
    path = tmp_path / "a.safetensors"
    trained.save(path)
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        fcnet.load(path)


@pytest.mark.parametrize("change", [lambda d: None, lambda d: d.update(format=1), lambda d: d.update(sha256=7)])
def test_a_missing_digest_is_damage(trained, tmp_path, change):
    trained.save(tmp_path / "a")
    rewrite(tmp_path / "a", change, sign=False)
    with pytest.raises(ValueError, match=r"digest is missing|checksums do not match"):
        fcnet.load(tmp_path / "a")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_unless_they_are_asked_for(trained, tmp_path, bad):
    broken = trained.copy()
    broken.params["W1"][0, 0] = bad
    broken.save(tmp_path / "a")
    with pytest.raises(ValueError, match="W1 holds NaN or infinite values"):
        fcnet.load(tmp_path / "a")
    assert not np.isfinite(broken.backend.to_numpy(fcnet.load(tmp_path / "a", allow_nonfinite=True).params["W1"])).all()


def test_foreign_files(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not a model saved by fcnet"):
        fcnet.load(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file; expected a model saved by fcnet"):
        fcnet.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected a run directory with model\.safetensors"):
        fcnet.load(tmp_path / "empty")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_folder_is_made_unasked(tmp_path, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"a folder that is there, got my new.*mkdir -p 'my new'\), or"):
        trained.save("my new/net.safetensors")
    assert list(tmp_path.iterdir()) == []
    Path("my new").mkdir()  # as it says
    trained.save("my new/net.safetensors")
    assert fcnet.load("my new/net.safetensors").config == trained.config


def test_files_are_as_readable_as_others(tmp_path):
    write_atomically(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_params_of_an_untrained_net_too(tmp_path):
    model = net(blobs(), hidden=())
    model.save(tmp_path / "linear.safetensors")
    assert fcnet.load(tmp_path / "linear.safetensors", device="cpu").hidden_dims == ()


@pytest.mark.parametrize("path", ["", None, 3])
def test_a_path_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = ValueError if path == "" else TypeError
    model = net(blobs())
    for call in (lambda: model.save(path), lambda: fcnet.load(path)):
        with pytest.raises(error, match=rf"^path: expected the name of a file or folder, got {path!r}; name one"):
            call()
    assert list(tmp_path.iterdir()) == []

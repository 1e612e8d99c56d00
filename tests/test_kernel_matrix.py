"""docs/kernels.md lists every function, with the kernels that the devices' tables have and the gains on record."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from fcnet.backends import REGISTRY
from fcnet.backends.cpu import loader
from fcnet.backends.cuda.kernels import cuda_kernels

pytestmark = pytest.mark.usefixtures("cpu_kernels")
DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_kernels", DOCS / "make_kernels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_what_the_script_writes(script):
    assert (DOCS / "kernels.md").read_text("utf-8") == script.matrix(), "run make docs"


def test_every_accelerated_function_and_every_kernel_is_in_it(script):
    found = {function.name: set(function.kernels) for function in script.functions()}
    assert set(REGISTRY) <= set(found)
    for device, table in (("cpu", loader.load().kernels), ("cuda", cuda_kernels(None, None))):
        assert set(table) <= {name for name, devices in found.items() if device in devices}


def test_what_no_kernel_replaces_is_labelled_so(script):
    rows = [line.split(" | ") for line in (DOCS / "kernels.md").read_text("utf-8").splitlines() if "](" in line]
    cells = {row[0].strip("| `"): row for row in rows if len(row) > 4}
    assert cells["max_norm"][2:4] == ["reference", "reference"]
    assert cells["decay_weights"][2] == "reference"
    assert "`layernorm_relu_backward`" in cells["layernorm_activation_dropout_backward"][3]
    for function in script.functions():
        for place, device in ((2, "cpu"), (3, "cuda")):
            assert cells[function.name][place].startswith("reference") is (device not in function.kernels)


def test_gains_are_ratios_of_the_last_record(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    row = {"op": "adam", "width": 4, "batch": 8, "device": "cpu", "variant": "reference", "median_us": 6.0}
    for date, median in (("2026-01-01", 1.0), ("2026-01-02", 2.0)):
        rows = [row, row | {"variant": "fused", "median_us": median}]
        (tmp_path / f"kernels-training-cpu-{date}.json").write_text(json.dumps({"rows": rows}))
    assert {key: gain.ratios for key, gain in script.gains().items()} == {("adam", "cpu"): [3.0]}

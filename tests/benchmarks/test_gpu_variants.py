"""What `gpu_variants` does on a machine without a GPU, and which plans it would try on one."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest

from benchmarks import gpu_variants
from fcnet.backends import Probe, Status
from fcnet.backends.cuda.persistent import best_plan

H100 = {"blocks": 132, "shared": 226 << 10}


def test_no_gpu_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_variants, "probe", lambda: Probe(Status.NO_DRIVER_OR_DEVICE, "no driver", "install one"))
    assert gpu_variants.main(["--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == "gpu-variants: no GPU can be used: no driver; install one\n"
    assert not list(tmp_path.iterdir())


def test_the_variants_of_a_net_begin_with_what_training_takes():
    net = gpu_variants.Net("digits", 64, [100, 100], norm=True, keep=1.0, many=True)
    found = gpu_variants.candidates(net, **H100)
    first = next(iter(found.values()))
    assert first == best_plan(net.widths, 100, norm=1, **H100)
    assert {(plan.threads, plan.rows_of_block) for plan in found.values()} == {
        (t, r) for t in (256, 512) for r in (2, 4)
    }
    assert all(plan.blocks <= H100["blocks"] and plan.shared <= H100["shared"] for plan in found.values())
    assert f"#define R {first.rows_of_block}\n" in gpu_variants.head_of(net, first)


@pytest.mark.parametrize(
    ("net", "widths", "norm"),
    [
        ("cifar", (3072, 100, 100, 100, 10), 1),
        ("mnist", (784, 100, 100, 100, 100, 10), 0),
        ("digits", (64, 100, 100, 10), 1),
    ],
)
def test_the_plan_that_training_takes_is_the_fastest_that_was_measured(net, widths, norm):
    record = json.loads((Path(gpu_variants.__file__).parent / "results/gpu-variants-2026-11-27.json").read_text())
    rows = [row for row in record["variants"] if row["net"] == net and "sooner" not in row["name"]]
    fastest = min(rows, key=lambda row: median(row["us_in_turns"]))["plan"]
    taken = best_plan(widths, 100, norm=norm, **H100)
    for name in ("rows_of_block", "j1", "k1", "j2", "k2", "x_buffers", "threads"):
        assert getattr(taken, name) == fastest[name], name

"""What `gpu_variants` does on a machine without a GPU, and which plans it would try on one."""

from __future__ import annotations

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

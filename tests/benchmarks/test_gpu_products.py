"""What `gpu_products` does on a machine without a GPU, and which products it asks for."""

from __future__ import annotations

from benchmarks import gpu_products
from fcnet.backends import Probe, Status


def test_no_gpu_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_products, "probe", lambda: Probe(Status.NO_DRIVER_OR_DEVICE, "no driver", "install one"))
    assert gpu_products.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "gpu-products: no GPU can be used: no driver; install one\n"
    assert not list(tmp_path.iterdir())
    assert gpu_products.main(["--parts", "large"]) == 2
    assert capsys.readouterr().err.startswith("gpu-products: ")


def test_the_products_of_a_step():
    net = gpu_products.Net(batch=8, inputs=6, width=4, hidden=3)
    found = {(case.layer, case.way): case for case in gpu_products.cases("n", net, "tf32")}
    assert ("first", "dx") not in found
    assert found["inner", "forward"][4:] == (2, 8, 4, 4)
    assert found["first", "dw"][4:] == (1, 6, 8, 4)
    assert found["output", "dx"][4:] == (1, 8, 10, 4)
    assert sum(case.times for case in found.values()) == 2 * 3 + 2 + 3
    assert found["output", "dw"].problem("float32")[:5] == (4, 8, 10, True, False)

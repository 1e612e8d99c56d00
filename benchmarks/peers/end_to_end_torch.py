"""A training script as PyTorch's users write one, for `benchmarks.end_to_end`: data on the device, fused Adam.

python -m benchmarks.peers.end_to_end_torch DATA.npz DEVICE EPOCHS BATCH HIDDEN
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def main(path: str, device: str, epochs: int, batch: int, hidden: list[int]) -> None:
    """Train and print the test accuracy of the epoch that was best in validation."""
    torch.manual_seed(0)
    with np.load(path) as arrays:
        data = {name: torch.from_numpy(arrays[name]).to(device) for name in arrays.files}
    inputs = data["X_train"].shape[1]
    mean = data["X_train"].float().mean(0)
    layers: list[nn.Module] = []
    for before, after in zip([inputs, *hidden], hidden, strict=False):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(hidden[-1], 10)).to(device)
    adam = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def prepared(x: torch.Tensor) -> torch.Tensor:
        return (x - mean) / 255

    @torch.no_grad()
    def accuracy(part: str) -> float:
        net.eval()
        X, y = data[f"X_{part}"], data[f"y_{part}"]
        right = sum((net(prepared(x)).argmax(1) == t).sum() for x, t in zip(X.split(4096), y.split(4096), strict=True))
        net.train()
        return float(right) / len(y)

    best, kept = -1.0, {}
    for _ in range(epochs):
        for rows in torch.randperm(len(data["y_train"])).to(device).split(batch):
            adam.zero_grad(set_to_none=True)
            F.cross_entropy(net(prepared(data["X_train"][rows])), data["y_train"][rows]).backward()
            adam.step()
        found = accuracy("val")
        if found > best:
            best, kept = found, {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(kept)
    print(f"test accuracy {accuracy('test'):.4f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), [int(width) for width in sys.argv[5].split(",")])

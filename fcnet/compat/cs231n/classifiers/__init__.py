"""The course's `classifiers`: of these, the fully connected ones."""

from fcnet.compat.cs231n.classifiers.fc_net import FullyConnectedNet, TwoLayerNet

__all__ = ["FullyConnectedNet", "TwoLayerNet"]

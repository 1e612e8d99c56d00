"""The course's `classifiers`: nearest neighbours, linear ones and fully connected nets."""

from fcnet.compat.cs231n.classifiers.fc_net import FullyConnectedNet, TwoLayerNet
from fcnet.compat.cs231n.classifiers.k_nearest_neighbor import KNearestNeighbor
from fcnet.compat.cs231n.classifiers.linear_classifier import LinearClassifier, LinearSVM, Softmax

__all__ = ["FullyConnectedNet", "KNearestNeighbor", "LinearClassifier", "LinearSVM", "Softmax", "TwoLayerNet"]

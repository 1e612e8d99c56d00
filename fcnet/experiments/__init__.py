"""The experiments of both courses on fully connected networks, as `fcnet experiment NAME` runs them.

An experiment makes a `Table` from `Settings`; its picture shows what is in the table and nothing else.
Sources: Saito, "Deep Learning from Scratch", chapter 6; for `depth-sensitivity` CS231n, assignment 2,
FullyConnectedNets.

>>> from fcnet.experiments import EXPERIMENTS, Settings
>>> print(EXPERIMENTS["optimizer-paths"].run(Settings(device="cpu")).findings[0])
SGD ends at (-0.350393, 0.084782)
"""

from fcnet.experiments import (
    activation_histograms,
    batchnorm_gradients,
    batchnorm_scales,
    depth_sensitivity,
    dropout,
    hyperparameter_search,
    init_comparison,
    optimizer_comparison,
    optimizer_paths,
    weight_decay,
)
from fcnet.experiments.base import Experiment, Settings, Table
from fcnet.experiments.output import picture, results_folder, write_results

EXPERIMENTS: dict[str, Experiment] = {
    "optimizer-paths": optimizer_paths.EXPERIMENT,
    "optimizer-comparison": optimizer_comparison.EXPERIMENT,
    "activation-histograms": activation_histograms.EXPERIMENT,
    "init-comparison": init_comparison.EXPERIMENT,
    "batchnorm-gradients": batchnorm_gradients.EXPERIMENT,
    "batchnorm-scales": batchnorm_scales.EXPERIMENT,
    "weight-decay": weight_decay.EXPERIMENT,
    "dropout": dropout.EXPERIMENT,
    "depth-sensitivity": depth_sensitivity.EXPERIMENT,
    "hyperparameter-search": hyperparameter_search.EXPERIMENT,
}

__all__ = ["EXPERIMENTS", "Experiment", "Settings", "Table", "picture", "results_folder", "write_results"]

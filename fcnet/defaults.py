"""The defaults of a training, in one place for `Solver`, data sets, command line and estimators.

`fcnet.compat` keeps its courses' own. How they were chosen: benchmarks/README.md; after Holzmüller, Grinsztajn and
Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data" (RealMLP), 2024, arXiv
2407.04491.
"""

from __future__ import annotations

import math

#: The update rule, with its own hyperparameters (`fcnet.optim.RULES`).
UPDATE_RULE = "adam"
#: The schedule of the learning rate if neither a change of the rate nor the number of epochs is given: constant, then
#: down to nearly 0. (With a number of epochs given, a training that is extended must equal a longer one.)
SCHEDULE = "flat_cosine"
#: The preprocessing of the inputs; see `fcnet.data.learn`.
PREPROCESS = "auto"
#: Samples per step, or all if there are fewer.
BATCH_SIZE = 200
#: A training ends after so many steps,
STEPS = 1000
#: but not before so many epochs.
EPOCHS = 20
#: If no number of epochs is given, it ends early when the best epoch is this share of all epochs ago.
PATIENCE = 0.3
#: If neither a change of the rate nor the number of epochs is given, L2 / 2 Σ W² is added to the sum of all samples'
#: losses. As those are likelihoods, it stands for a normal distribution of variance 1 / L2 that all weights come from.
L2 = 3.0
#: The training of an estimator is over when loss, or score of held-out rows, gets no better by so much for some epochs.
TOLERANCE = 1e-3
#: The one hidden layer of an estimator has so many units,
UNITS = 100
#: or so many, where it is fitted to
UNITS_OF_MANY = 200
#: so many rows or more.
MANY_ROWS = 700
#: Of two equal validation figures the later one is better if its loss is below this share of the other's.
LESS = 0.99
#: The network is evaluated after each epoch, or, where epochs are only a step or two, about every so many steps,
EVALUATION_STEPS = 25
#: but at least so many times in a training.
EVALUATIONS = 40


def batch_size(count: int) -> int:
    """Return the samples per step of a training part of `count` samples."""
    return min(BATCH_SIZE, count)


def hidden_units(count: int) -> int:
    """Return the units of the hidden layer of an estimator that is fitted to `count` rows."""
    return UNITS_OF_MANY if count >= MANY_ROWS else UNITS


def epochs(steps_per_epoch: int) -> int:
    """Return the number of epochs of a training whose epochs have `steps_per_epoch` steps.

    >>> epochs(1), epochs(7), epochs(500)
    (1000, 143, 20)
    """
    return max(EPOCHS, math.ceil(STEPS / steps_per_epoch))


def reg(weight: float, scale: float) -> float:
    """Return the strength of the L2 penalty beside the mean loss of samples of this total weight.

    Args:
        weight: their number, or the sum of their weights. scale: of the loss (`fcnet.nn.objective.loss_scale`).

    >>> reg(300, 1.0)
    0.01
    """
    return L2 / (weight * scale)


def patience(epochs: int) -> int:
    """Return after how many epochs without a better one a training of `epochs` epochs ends early.

    >>> patience(20), patience(1000)
    (6, 300)
    """
    return math.ceil(PATIENCE * epochs)


def epochs_per_evaluation(epochs: int, steps_per_epoch: int) -> int:
    """Return every how many epochs the network is evaluated, in a training of `epochs` of `steps_per_epoch` steps.

    >>> epochs_per_evaluation(1000, 1), epochs_per_evaluation(500, 2), epochs_per_evaluation(20, 1)
    (25, 12, 1)
    """
    return max(1, min(EVALUATION_STEPS // steps_per_epoch, epochs // EVALUATIONS))

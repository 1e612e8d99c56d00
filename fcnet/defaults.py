"""What a training is like unless it is told otherwise: one place for `Solver`, data sets, command line and estimators.

`fcnet.compat` keeps its courses' own. How they were chosen: benchmarks/README.md; after Holzmüller, Grinsztajn and
Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data" (RealMLP), 2024, arXiv
2407.04491.
"""

from __future__ import annotations

import math

#: The rule; its hyperparameters are its own (`fcnet.optim.RULES`).
UPDATE_RULE = "adam"
#: Of the learning rate, where nobody says how it changes, nor how many epochs (so that a training that is made longer
#: is one that was to be so long): constant, then down to nearly nothing.
SCHEDULE = "flat_cosine"
#: Of the inputs; see `fcnet.data.learn`.
PREPROCESS = "auto"
#: Samples a step, or all if there are fewer.
BATCH_SIZE = 200
#: A training is over after so many steps,
STEPS = 1000
#: and not before so many epochs.
EPOCHS = 20
#: Where nobody says how many epochs, it ends early when the best is this share of them ago.
PATIENCE = 0.3
#: Where nobody says how many epochs, nor how the rate changes, L2 / 2 Σ W² is added to the sum of all samples' losses.
#: As those are likelihoods, it stands for a normal distribution of variance 1 / L2 that all weights are taken from.
L2 = 3.0
#: The training of an estimator is over when loss, or score of held-out rows, gets no better by so much for some epochs.
TOLERANCE = 1e-3
#: Of two equal validation figures the later one is better if its loss is less than so much of the other's.
LESS = 0.99
#: The network is looked at each epoch, or where an epoch is but a step or two about every so many steps,
EVALUATION_STEPS = 25
#: but so many times in a training.
EVALUATIONS = 40


def batch_size(count: int) -> int:
    """Return the samples a step of a training part of so many."""
    return min(BATCH_SIZE, count)


def epochs(steps_per_epoch: int) -> int:
    """Return the epochs of a training, of so many steps each.

    >>> epochs(1), epochs(7), epochs(500)
    (1000, 143, 20)
    """
    return max(EPOCHS, math.ceil(STEPS / steps_per_epoch))


def reg(weight: float, scale: float) -> float:
    """Return the strength of the L2 penalty beside the mean loss of samples that weigh so much together.

    Args:
        weight: their number, or the sum of their weights. scale: of the loss (`fcnet.nn.objective.loss_scale`).

    >>> reg(300, 1.0)
    0.01
    """
    return L2 / (weight * scale)


def patience(epochs: int) -> int:
    """Return after how many epochs without a better one a training of so many ends early.

    >>> patience(20), patience(1000)
    (6, 300)
    """
    return math.ceil(PATIENCE * epochs)


def epochs_per_evaluation(epochs: int, steps_per_epoch: int) -> int:
    """Return every how many epochs the network is looked at in a training of so many, of so many steps each.

    >>> epochs_per_evaluation(1000, 1), epochs_per_evaluation(500, 2), epochs_per_evaluation(20, 1)
    (25, 12, 1)
    """
    return max(1, min(EVALUATION_STEPS // steps_per_epoch, epochs // EVALUATIONS))

"""From scikit-learn's parameters to those of the engine: one place for what each of them means.

With n rows that count W together and batches of B rows, scikit-learn minimises, for each batch,

    mean of the rows' losses + alpha / (2 b) Σ W², b the batch's own weight, which is less in a short last batch.

Here b is that of a whole batch, B W / n, always. A row's loss is ½ Σ_k (s_k - y_k)² for numbers, the cross-entropy for
classes, and the sum of the labels' cross-entropies for several labels; fcnet's own losses are those divided by the
`fcnet.nn.objective.loss_scale`. So gradients are scikit-learn's divided by it, which the learning rate of rules that
are linear in the gradient makes up for, and epsilon for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fcnet import defaults
from fcnet.optim import RULES

ACTIVATIONS = {"logistic": "sigmoid"}  # scikit-learn's names where fcnet has others
_LINEAR = ("sgd", "momentum", "nesterov")  # rules whose step is proportional to the gradients so far


def hidden_widths(hidden_layer_sizes: Any, count: int) -> list[int]:
    """Return the widths of the hidden layers for a fit to `count` rows. Raises ValueError."""
    if isinstance(hidden_layer_sizes, str):
        return [defaults.hidden_units(count)]
    sizes = list(hidden_layer_sizes) if hasattr(hidden_layer_sizes, "__iter__") else [hidden_layer_sizes]
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes: expected widths of 1 or more (must be > 0), got {sizes}")
    return [int(size) for size in sizes]


def activations(given: str | Sequence[str]) -> str | list[str]:
    """Return fcnet's names of the hidden layers' activations: one for all, or one for each."""
    if isinstance(given, str):
        return ACTIVATIONS.get(given, given)
    return [ACTIVATIONS.get(name, name) for name in given]


def rule_of(solver: str, momentum: float, nesterovs_momentum: bool) -> str:
    """Return the update rule: "sgd" stands for three of them, as its momentum is."""
    if solver != "sgd" or momentum == 0:
        return solver
    return "nesterov" if nesterovs_momentum else "momentum"


def rule_config(estimator: Any, rule: str, scale: float) -> dict[str, float]:
    """Return the rule's hyperparameters."""
    linear = rule in _LINEAR
    values = {
        "learning_rate": estimator.learning_rate_init * (scale if linear else 1),
        "momentum": estimator.momentum,
        "beta1": estimator.beta_1,
        "beta2": estimator.beta_2,
        "epsilon": estimator.epsilon / scale,
    }
    return {name: value for name, value in values.items() if name in RULES[rule].defaults}

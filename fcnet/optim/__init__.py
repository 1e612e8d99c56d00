"""Optimizers: the rules (the only formulas), what limits a step beside them, and the class that applies one."""

from fcnet.optim.limits import clip_by_norm, clip_by_value, decay_weights, max_norm
from fcnet.optim.optimizers import Optimizer
from fcnet.optim.rules import RULES, Rule

__all__ = ["RULES", "Optimizer", "Rule", "clip_by_norm", "clip_by_value", "decay_weights", "max_norm"]

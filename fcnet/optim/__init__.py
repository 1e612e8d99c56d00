"""Optimizers: the rules (the only formulas) and the class that applies one to a network."""

from fcnet.optim.optimizers import RULES, Optimizer, Rule

__all__ = ["RULES", "Optimizer", "Rule"]

"""Searches over the options of a training, on Optuna (extra `search`); what is not one loads none of it."""

"""Searches over the options of a training, with Optuna (extra `search`), which is loaded only for a search."""

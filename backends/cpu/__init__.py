"""Numba kernels for the CPU (extra `fast`); `loader` finds out whether they serve."""

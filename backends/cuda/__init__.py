"""CUDA kernels: their sources (`*.cu`), how they are compiled and launched, products, graphs, copies."""
